"""`agentos up`."""

import json
import os
import subprocess
import sys
import threading
from typing import Annotated

import typer
from rich.text import Text

from agentos.cli.database import command_settings, described
from agentos.cli.options import Dsn
from agentos.cli.output import err
from agentos.cli.supervise import Child, Supervisor
from agentos.store.connect import open_target
from agentos.store.errors import ConfigInvalid

_STYLES = {"coordinator": "magenta", "worker": "cyan"}
_speaking = threading.Lock()
APP_MARK = "agentos: "
"""Begins the answer of `agentos.cli.app_check`, which is not imported here: it loads the worker."""


def up(
    app: Annotated[str | None, typer.Option(metavar="MODULE:NAME", help="Your App, as in my_agents:app.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Items at the same time (default: 8).")] = None,
    allow_kind: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help="Also run this kind: shell. It is remote execution.")
    ] = None,
    queue: Annotated[list[str] | None, typer.Option(help="Queue to serve; may be repeated (default: default).")] = None,
    migrate: Annotated[bool, typer.Option("--migrate", help="Bring the schema of a --dsn to this version.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The logs of all as JSON lines on stdout, no prefix.")] = False,
    dsn: Dsn = None,
) -> None:
    """Database, coordinator and a worker in this terminal, for development.

    Their logs go to stderr, each line with the name of its process; with --json to stdout as they are.
    Without a DSN the embedded database is started and migrated. Ctrl-C stops all cleanly: running handlers get the
    grace of the worker to reach a checkpoint; a second Ctrl-C stops at once. A process that is killed is started again.

    \b
    Examples:
      agentos up --allow-kind shell
      agentos up --app my_agents:app --concurrency 4
      agentos up --dsn postgresql://me@127.0.0.1:5432/dev --migrate
    """
    settings = command_settings(dsn, log_level="info")
    _check(allow_kind or [], app)
    target = open_target(settings, may_migrate=migrate)  # from here this process keeps an embedded server up
    environment = _environment(dsn, as_json=json)
    worker = [*_option("--app", app), *_option("--concurrency", concurrency)]
    for kind in allow_kind or ():
        worker += ["--allow-kind", kind]
    for name in queue or ():
        worker += ["--queue", name]
    children = [
        Child("coordinator", "agentos.coordinator", [], environment),
        Child("worker", "agentos.worker", worker, environment),
    ]  # fmt: skip
    err.print(f"agentos is up on {described(target, settings)}; Ctrl-C stops it")
    say = _say_json if json else _say
    code = Supervisor(children, say, grace_s=settings.grace_s + 5).run()
    err.print("stopped")
    raise typer.Exit(code)


def _check(allowed: list[str], app: str | None) -> None:
    """Raises ConfigInvalid: if the worker would refuse these; told before anything is started."""
    if unknown := sorted(set(allowed) - {"shell"}):
        raise ConfigInvalid(
            f"--allow-kind {', '.join(unknown)}: only shell has to be allowed",
            hint="leave it out; kinds of your own come with --app module:name",
        )
    if app is None:
        return
    # In a process of its own: an app may start threads or open connections when it is imported.
    done = subprocess.run(
        [sys.executable, "-m", "agentos.cli.app_check", app], capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        last = done.stdout.splitlines()[-1:] or [""]
        told = json.loads(last[0].removeprefix(APP_MARK)) if last[0].startswith(APP_MARK) else {}
        raise ConfigInvalid(
            told.get("message", f"--app {app}: importing it ended with exit code {done.returncode}"),
            hint=told.get("hint"), detail=None if told else done.stderr.strip()[-2000:] or None,
        )  # fmt: skip


def _environment(dsn: str | None, *, as_json: bool) -> dict[str, str]:
    """What the children get: the DSN here, because a command line can be read by every user of the machine."""
    environment = dict(os.environ)
    environment.pop("AGENTOS_HEALTH_PORT", None)  # one port cannot be that of two processes
    if dsn:
        environment["AGENTOS_DSN"] = dsn
    if as_json:
        environment["AGENTOS_LOG_FORMAT"] = "json"
    elif err.is_terminal:
        environment.setdefault("AGENTOS_LOG_FORMAT", "console")
    return environment


def _option(name: str, value: object) -> list[str]:
    return [] if value is None else [name, str(value)]


def _say(name: str, line: str) -> None:
    with _speaking:
        err.print(Text.assemble((f"{name:<11} │ ", _STYLES[name]), Text.from_ansi(line)))


def _say_json(_: str, line: str) -> None:
    with _speaking:
        print(line, flush=True)
