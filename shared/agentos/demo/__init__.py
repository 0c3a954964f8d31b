"""The demo: an audit of the Python environment it runs in, with a worker killed in the middle of it.

`python -m agentos.demo`, `agentos demo`, or `main(argv)`. `app` holds the handlers and tools that the workers run; all
else is the conductor, which starts the processes, kills one, watches, and counts.
"""

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo with these arguments (default: those of the process). Returns the exit code; see `--help`."""
    from agentos.demo.__main__ import main as run  # noqa: PLC0415  start-up: workers import this package for its app

    return run(argv)
