"""The coordinator process: reclaim, promote, repair. Any number may run; one leads."""
