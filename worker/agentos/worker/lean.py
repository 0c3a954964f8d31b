"""`cli`, imported without what a worker has no use for: every process pays the memory, every recovery the time."""

from agentos.core.imports import without

with without("rich"):  # structlog's tracebacks: this process prints plain ones
    import structlog  # noqa: F401  only so that it is imported here

from agentos.worker.command import cli

__all__ = ["cli"]
