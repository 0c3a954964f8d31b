"""The coordinator process: reclaim, promote, repair."""
