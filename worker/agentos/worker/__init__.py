"""The worker process: claim, run, beat, flush, drain."""
