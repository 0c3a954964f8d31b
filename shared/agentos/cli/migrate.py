"""`agentos migrate`."""

from typing import Annotated

import typer

from agentos.cli.database import command_settings, described
from agentos.cli.options import AsJson, Dsn
from agentos.cli.output import out, print_json
from agentos.store import migrate as migrating
from agentos.store.connect import connect, locate
from agentos.store.grants import PREFIX


def migrate(
    roles: Annotated[bool, typer.Option("--roles", help="Also make the roles for least privilege.")] = False,
    role_prefix: Annotated[str, typer.Option(metavar="PREFIX", help="What their names begin with.")] = PREFIX,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """Bring the schema of the database to this version; does nothing when it is there.

    Safe while workers run and when many start it at once: it takes a lock, and all of it commits together. The role
    needs CREATE on the database the first time, and must own the schema agentos later.

    With --roles the schema is handed over to agentos_owner, and agentos_submitter, agentos_worker, agentos_coordinator
    and agentos_reader may do what each needs and nothing else; grant them to your logins. That needs CREATEROLE (or a
    superuser), once: later a member of agentos_owner migrates, without --roles.

    \b
    Examples:
      agentos migrate --dsn postgresql://me@db.example:5432/agents
      AGENTOS_DSN=postgresql://… agentos migrate --json
      agentos migrate --roles && psql -c 'GRANT agentos_worker TO my_worker_login'
    """
    settings = command_settings(dsn)
    target = locate(settings)
    with connect(target.dsn) as conn:
        report = migrating.migrate(conn, role_prefix=role_prefix if roles else None)
    if json:
        print_json(report)
        return
    where = described(target, settings)
    for name in report.applied:
        out.print(f"applied {name}")
    if report.functions:
        out.print("re-applied the functions and views")
    if report.roles:
        out.print(f"roles: {', '.join(report.roles)}")
    changed = report.applied or report.functions or report.roles
    out.print(f"{where} is at version {report.version}{'' if changed else ', nothing to do'}")
