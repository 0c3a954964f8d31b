"""`agentos-worker`, also `python -m agentos.worker`."""

import signal


def main() -> None:
    """The console script. Until it serves there is nothing to drain: Ctrl-C just ends it, without a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from agentos.worker.command import cli  # noqa: PLC0415  half a second of imports, in which Ctrl-C may come

    cli()


if __name__ == "__main__":
    main()
