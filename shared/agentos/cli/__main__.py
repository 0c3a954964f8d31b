"""`agentos`, also `python -m agentos.cli`."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from agentos.cli.catalogue import COMMANDS

_HELP = """agentos: a worker pool on Postgres for long-running AI-agent tasks.

\b
First steps:
  agentos demo                                     see it survive a killed worker
  agentos up --allow-kind shell                    everything in one terminal
  agentos submit shell '{"command": "date"}' --wait
  agentos show TASK                                what happened to it

The database is --dsn, else AGENTOS_DSN, else an embedded one of this user. Every command has --help with examples,
and --json for programs (the answer on stdout, logs on stderr).

\b
Exit codes:
  0  ok                                3  the database cannot be used
  1  a task failed, or doctor found    4  the timeout ended first
  2  wrong usage or input              5  no such task"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; ends with SystemExit."""
    args = list(sys.argv[1:] if argv is None else argv)
    invoked = next((arg for arg in args if not arg.startswith("-")), None)
    try:
        build(invoked)(args=args, prog_name="agentos")
    except Exception as error:
        from agentos.cli.exits import report  # noqa: PLC0415  for start-up: only a command that failed needs it

        sys.exit(report(error, as_json="--json" in args))


def build(invoked: str | None) -> typer.Typer:
    """All commands; only the one that was invoked is really imported."""
    # Without a terminal the help is plain text, and rich is not imported for it.
    app = typer.Typer(
        help=_HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
        rich_markup_mode="rich" if sys.stdout.isatty() else None,
    )  # fmt: skip
    app.callback(help=_HELP)(_root)
    for entry in COMMANDS:
        if entry.name != invoked:
            app.command(entry.name, help=entry.line, rich_help_panel=entry.panel)(_not_loaded)
            continue
        found = getattr(import_module(f"agentos.cli.{entry.module}"), entry.name)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=entry.name, rich_help_panel=entry.panel)
        else:
            settings = getattr(found, "context_settings", None)
            app.command(entry.name, rich_help_panel=entry.panel, context_settings=settings)(found)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415  for start-up

        print(version("agentos-pool"))
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def _not_loaded() -> None:
    """Stands for a command in the list of commands."""


if __name__ == "__main__":
    main()
