"""`agentos db`: the embedded database."""

import os
from typing import Annotated

import typer

from agentos.cli.database import command_settings
from agentos.cli.options import AsJson
from agentos.cli.output import err, out, print_json, print_table, size
from agentos.store.embedded import EmbeddedServer

db = typer.Typer(
    help="""Start, stop or look at the embedded database.

    It is used when neither --dsn nor AGENTOS_DSN names another, lies in AGENTOS_DATA_DIR, starts by itself with its
    first user and stops some seconds after its last one. These commands are for keeping it up and for a clean stop.

    \b
    Examples:
      agentos db status
      agentos db start && psql "$(agentos db status --json | jq -r .dsn)"
      agentos db stop
    """,
    no_args_is_help=True,
)


def _server() -> EmbeddedServer:
    settings = command_settings(None)
    if os.environ.get("AGENTOS_DSN"):
        err.print("AGENTOS_DSN is set: agentos uses that database, this is about the embedded one.")
    return EmbeddedServer(settings.data_dir)


@db.command()
def start(json: AsJson = False) -> None:
    """Start it and keep it up, users or not, until `agentos db stop`."""
    dsn = _server().start(pin=True)
    if json:
        print_json({"dsn": dsn})
    else:
        out.print(dsn)


@db.command()
def stop(
    force: Annotated[bool, typer.Option("--force", help="Stop it under its living users too.")] = False,
    json: AsJson = False,
) -> None:
    """Stop it. Refused while living processes use it, unless --force."""
    server = _server()
    was = server.status().running
    server.stop(force)
    if json:
        print_json({"stopped": was})
    else:
        out.print("stopped" if was else "it does not run")


@db.command()
def status(json: AsJson = False) -> None:
    """What is known of it now; starts nothing."""
    found = _server().status()
    if json:
        print_json(found)
        return
    rows = (
        ("state", "running" if found.running else "stopped"),
        ("kept up", "until `agentos db stop`" if found.pinned else "while it has users"),
        ("folder", found.data_dir), ("size", size(found.size)), ("version", found.version), ("pid", found.pid),
        ("dsn", found.dsn), ("users", ", ".join(map(str, found.users))),
    )  # fmt: skip
    print_table(("embedded database", ""), rows)
