"""`agentos demo`, also `python -m agentos.demo`."""

import json
import sys
from collections.abc import Sequence

from agentos.demo.options import Options, parse_options

OK, FAILED, UNUSABLE, NO_DATABASE, INTERRUPTED = 0, 1, 2, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, perform, tell. Returns the exit code."""
    options = parse_options(argv)
    # For start-up: the drivers take most of a second to import, which --help does not need.
    from rich.console import Console  # noqa: PLC0415

    from agentos.core.logs import configure_logs  # noqa: PLC0415
    from agentos.demo.conductor import Conductor, interruptible  # noqa: PLC0415
    from agentos.demo.telling import tell  # noqa: PLC0415
    from agentos.store.errors import AgentOSError, DatabaseError, InvalidInput  # noqa: PLC0415

    configure_logs("console", "warning")
    console = Console(stderr=options.json, highlight=False)
    try:
        with interruptible():
            summary = Conductor(options, console).run()
    except KeyboardInterrupt:
        print("interrupted; everything the demo started is stopped", file=sys.stderr)
        return INTERRUPTED
    except AgentOSError as error:
        _refuse(options, error)
        if isinstance(error, DatabaseError):
            return NO_DATABASE
        return UNUSABLE if isinstance(error, InvalidInput) else FAILED
    if options.json:
        print(json.dumps(summary.as_json(), indent=2))
    else:
        tell(console, summary)
    return OK if summary.ok else FAILED


def _refuse(options: Options, error: Exception) -> None:
    print(f"agentos demo: {error}", file=sys.stderr)
    if detail := getattr(error, "detail", None):
        print(detail, file=sys.stderr)
    if options.json:
        print(json.dumps({"ok": False, "error": str(error)}))


if __name__ == "__main__":
    sys.exit(main())
