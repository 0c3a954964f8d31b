"""`agentos-coordinator`, also `python -m agentos.coordinator`."""

import os
import signal
import sys
from collections.abc import Sequence

from agentos.coordinator.options import Options, parse_options
from agentos.core.probe import healthcheck

FAILED, UNUSABLE, NO_DATABASE = 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and say what went wrong in one message. Returns the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    if "--healthcheck" in given:
        return healthcheck(given)
    # Until it runs, a signal just ends it, without a traceback; as PID 1 a process without a handler never sees it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os._exit(128 + number))
    options = parse_options(given)
    # Here and below, for start-up: the drivers take most of a second to import, which --help does not need.
    from agentos.store.errors import AgentOSError, DatabaseError, InvalidInput  # noqa: PLC0415

    try:
        _run(options)
    except AgentOSError as error:
        print(f"agentos-coordinator: {error}", file=sys.stderr)
        if isinstance(error, DatabaseError):
            return NO_DATABASE
        return UNUSABLE if isinstance(error, InvalidInput) else FAILED
    return 0


def _run(options: Options) -> None:
    import asyncio  # noqa: PLC0415  start-up, as above
    import json  # noqa: PLC0415  start-up
    from dataclasses import asdict  # noqa: PLC0415  start-up

    from agentos.coordinator.coordinator import Coordinator  # noqa: PLC0415  start-up
    from agentos.coordinator.once import sweep_once  # noqa: PLC0415  start-up
    from agentos.core.logs import configure_logs  # noqa: PLC0415  start-up
    from agentos.store.settings import load_settings  # noqa: PLC0415  start-up

    settings = load_settings(
        dsn=options.dsn,
        ttl_s=options.ttl_s,
        sweep_s=options.sweep_s,
        health_port=options.health_port,
        log_format="json" if options.json else None,
    )
    configure_logs(settings.log_format, settings.log_level)
    if not options.once:
        asyncio.run(
            Coordinator(settings, migrate=options.migrate, health_port=settings.health_port).run(),
        )
        return
    swept = asyncio.run(sweep_once(settings, may_migrate=options.migrate))
    print(json.dumps(asdict(swept)) if options.json else swept)


if __name__ == "__main__":
    sys.exit(main())
