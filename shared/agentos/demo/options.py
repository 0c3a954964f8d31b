"""The command line of the demo. Imports nothing of ours, so that --help answers at once."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_DESCRIPTION = """\
Audits the very Python environment it runs in: every file of every installed distribution is compared with RECORD.
Two worker processes and a coordinator do it. In the middle one worker is killed with SIGKILL while it holds an item
that has a checkpoint, and an artifact that this checkpoint vouches for is changed. The audit finishes all the same:
nothing lost, no effect twice, no answer of the model paid twice. A log outside the database is what is counted."""

_EPILOG = """\
Examples:
  agentos demo
  agentos demo --plain --out /tmp/audit
  agentos demo --json --limit 20 | jq .problems

exit codes:
  0    nothing lost, nothing duplicated, and the killed item and its artifact went through recovery
  1    that is not so; the summary says what
  2    wrong usage or configuration
  3    the database cannot be used
  130  interrupted; everything it started is stopped"""


@dataclass(frozen=True, slots=True)
class Options:
    """`pace_s`: seconds each item pauses between its two answers. `limit`: audit only so many distributions."""

    dsn: str | None
    out: Path | None
    ttl_s: float
    pace_s: float
    limit: int | None
    timeout_s: float
    migrate: bool
    json: bool
    plain: bool


def parse_options(argv: Sequence[str] | None = None, prog: str | None = None) -> Options:
    """The options of `argv` (default: of this process). Exits with 2 if they cannot be read."""
    parser = argparse.ArgumentParser(
        prog or "agentos demo", description=_DESCRIPTION, epilog=_EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--dsn", help="database; default AGENTOS_DSN, else the embedded one")
    add("--migrate", action="store_true", help="bring the schema of that database up to date first")
    add("--out", type=Path, metavar="FOLDER", help="where report, artifacts, effects log and logs go; must be empty")
    ttl = "time without a beat after which a worker of the demo counts as dead (default 3; elsewhere it is 15)"
    add("--ttl", dest="ttl_s", type=_seconds, default=3.0, metavar="SECONDS", help=ttl)
    pace = "pause of each item between its two answers (default 1); less when there are very many distributions"
    add("--pace", dest="pace_s", type=_seconds, default=1.0, metavar="SECONDS", help=pace)
    add("--limit", type=_count, metavar="N", help="audit only the N largest distributions")
    add("--timeout", dest="timeout_s", type=_seconds, default=300.0, metavar="SECONDS", help="give up (default 300)")
    add("--plain", action="store_true", help="lines instead of the live view, also on a terminal")
    add("--json", action="store_true", help="the summary as JSON on stdout, progress on stderr")
    return Options(**vars(parser.parse_args(argv)))


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 86400 seconds")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value
