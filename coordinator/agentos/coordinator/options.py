"""The command line of `agentos-coordinator`. Imports nothing of ours, so that --help answers at once."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

_DESCRIPTION = """\
Keeps the pool going: takes leases back from workers that stopped beating, readies delayed and retrying items when
they are due, ends tasks at their deadline, fires cron entries, quarantines items that killed their process three
times, repairs tasks, counts what there is, says what stands still, makes the day partitions, and retires what is
kept no longer.

Run one or more, anywhere; one leads and the others take over within the TTL. No work is lost while none runs: it
only waits. SIGTERM or SIGINT stops it cleanly, a second signal at once."""

_EPILOG = """\
duties, each a loop of its own, and the variable of its interval (docs/coordinator.md):
  reclaim     AGENTOS_SWEEP_S (1, or --sweep)   repair      AGENTOS_REPAIR_S (5)
  promote     AGENTOS_PROMOTE_S (as sweep)      tidy        AGENTOS_TIDY_S (30)
  deadlines   AGENTOS_DEADLINES_S (as sweep)    statistics  AGENTOS_STATISTICS_S (10)
  cron        AGENTOS_CRON_S (5)                stuck       AGENTOS_STUCK_S (30)
  retention   AGENTOS_RETENTION_S (600)         partitions  AGENTOS_PARTITIONS_S (3600)
  gone        AGENTOS_GONE_S (0.6; 0: never): how long a worker's sessions must be gone

examples:
  agentos-coordinator                                  on the embedded database of this user
  agentos-coordinator --dsn postgresql://… --migrate   on your own server, its schema brought up to date first
  agentos-coordinator --health-port 8080 --json        with probes at /livez and /readyz, and JSON logs
  agentos-coordinator --healthcheck                    asks that port as a container's health check; --ready: /readyz
  agentos-coordinator --once                           one sweep for a cron job or a look; prints what it did

exit codes:
  0  stopped by a signal, or --once is done
  2  an option or AGENTOS_* variable cannot be used
  3  the schema is missing, half migrated or newer than this version, or the embedded database cannot be started;
     with --once also: the database cannot be reached (without --once it keeps trying)
  1  anything else; --healthcheck: it does not live (--ready: it is not ready)
  130, 143  SIGINT, SIGTERM before it runs, or a second one"""


@dataclass(frozen=True, slots=True)
class Options:
    """What was typed; None: not given, so the AGENTOS_* variable or the default counts."""

    dsn: str | None
    ttl_s: float | None
    sweep_s: float | None
    migrate: bool
    health_port: int | None
    json: bool
    once: bool
    healthcheck: bool = False
    ready: bool = False


def parse_options(argv: Sequence[str] | None = None) -> Options:
    """The options of `argv` (default: of this process). Exits with 2 if they cannot be read."""
    parser = argparse.ArgumentParser(
        "agentos-coordinator", description=_DESCRIPTION, epilog=_EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--dsn", help="postgresql://… of the server (default: AGENTOS_DSN, else the embedded database)")
    ttl = "another coordinator takes over at most so long after this one died (default: AGENTOS_TTL_S, else 15)"
    add("--ttl", dest="ttl_s", type=float, metavar="SECONDS", help=ttl)
    sweep = "time between two sweeps (default: AGENTOS_SWEEP_S, else 1)"
    add("--sweep", dest="sweep_s", type=float, metavar="SECONDS", help=sweep)
    add("--migrate", action="store_true", help="bring the schema of the database up to date first")
    port = "serve /livez, /readyz and /metrics; 0 picks a port and logs it (default: AGENTOS_HEALTH_PORT, else none)"
    add("--health-port", type=int, metavar="PORT", help=port)
    add("--json", action="store_true", help="logs (and the report of --once) as JSON")
    add("--once", action="store_true", help="do one sweep, print what it did, and exit")
    add(
        "--healthcheck",
        action="store_true",
        help="ask the health port of this host and exit: 0 it lives, 1 it does not",
    )
    add("--ready", action="store_true", help="with --healthcheck: whether it is ready")
    options = Options(**vars(parser.parse_args(argv)))
    if options.healthcheck or options.ready:  # --healthcheck is answered before this is called
        parser.error("--ready goes with --healthcheck, and both only with agentos-coordinator itself")
    return options
