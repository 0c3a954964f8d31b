"""Handlers with isolation="process": a child process for each attempt, whose context is answered by the worker."""
