"""`agentos migrate`."""

from agentos.cli.database import command_settings, described
from agentos.cli.options import AsJson, Dsn
from agentos.cli.output import out, print_json
from agentos.store import migrate as migrating
from agentos.store.connect import connect, locate


def migrate(dsn: Dsn = None, json: AsJson = False) -> None:
    """Bring the schema of the database to this version; does nothing when it is there.

    Safe while workers run and when many start it at once: it takes a lock, and all of it commits together. The role
    needs CREATE on the database the first time, and must own the schema agentos later.

    \b
    Examples:
      agentos migrate --dsn postgresql://me@db.example:5432/agents
      AGENTOS_DSN=postgresql://… agentos migrate --json
    """
    settings = command_settings(dsn)
    target = locate(settings)
    with connect(target.dsn) as conn:
        report = migrating.migrate(conn)
    if json:
        print_json(report)
        return
    where = described(target, settings)
    for name in report.applied:
        out.print(f"applied {name}")
    if report.functions:
        out.print("re-applied the functions and views")
    changed = report.applied or report.functions
    out.print(f"{where} is at version {report.version}{'' if changed else ', nothing to do'}")
