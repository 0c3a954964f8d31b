"""`agentos-worker`, also `python -m agentos.worker`."""

import gc
import os
import signal
import sys

from agentos.core.probe import healthcheck


def main() -> None:
    """The console script. Until it serves there is nothing to drain: a signal just ends it, without a traceback.

    SIGTERM needs a handler from the first moment: as PID 1 of a container a process without one never sees it, and
    would be killed at the end of the container's grace, with whatever it had claimed by then.
    """
    if "--healthcheck" in sys.argv[1:]:
        sys.exit(healthcheck(sys.argv[1:]))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os._exit(128 + number))
    gc.disable()  # what the imports make stays: looking through it for garbage took a tenth of their time
    from agentos.worker.lean import cli  # noqa: PLC0415  half a second of imports, in which a signal may come

    gc.enable()
    cli()


if __name__ == "__main__":
    main()
