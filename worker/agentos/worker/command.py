"""`agentos-worker`: claims work items and runs them until it is told to stop.

Exit codes: see EXAMPLES, which --help prints.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
from typing import Annotated

import typer
import uvloop

from agentos.core.durability import warn_if_unsafe
from agentos.core.evidence.role import require_role
from agentos.core.logs import configure_logs, get_logger
from agentos.core.tracing import setup as tracing
from agentos.store.connect import open_target
from agentos.store.errors import AgentOSError, DatabaseError
from agentos.store.settings import load_settings
from agentos.worker.handlers import abandoned
from agentos.worker.options import Options, load_app
from agentos.worker.process import Worker
from agentos.worker.solo import DRAIN_SIGNAL

cli = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)

EXAMPLES = """
Claims work items and runs them until it is told to stop.

  agentos-worker --concurrency 8                          the built-in kinds llm and plan

  agentos-worker --app my_agents:app --concurrency 8      your own handlers

  agentos-worker --allow-kind shell                       shell commands too: that is remote execution

SIGTERM or Ctrl-C drains: nothing new is claimed, running handlers get --grace seconds to end or to reach a
checkpoint, the rest is handed back. A second signal hands everything back now. Nothing is burnt either way.

Exit codes: 0 drained. 2 an option, a variable or the app cannot be used. 3 the database cannot be used: a start does
not wait for it, an outage later is waited out. 1 anything else. 130, 143 ended by SIGINT, SIGTERM before it served.

As the health check of a container, without a shell or curl: agentos-worker --healthcheck (0: it lives, 1: it does not;
with --ready: whether it serves), which asks the port of --health-port or AGENTOS_HEALTH_PORT.
"""


@cli.command(help=EXAMPLES)
def worker(  # noqa: PLR0913, PLR0917  one parameter is one option: Typer reads them here
    concurrency: Annotated[int | None, typer.Option(help="Items at the same time. Default 8.")] = None,
    prefetch: Annotated[
        int | None, typer.Option(help="Items held beyond those at most; 0: none. Default: what short handlers allow.")
    ] = None,
    app: Annotated[str | None, typer.Option(help="Where your App is: module:name.")] = None,
    queue: Annotated[list[str] | None, typer.Option(help="Queue to serve; may be repeated. Default: default.")] = None,
    allow_kind: Annotated[list[str] | None, typer.Option(help="Also run this kind: shell.")] = None,
    dsn: Annotated[str | None, typer.Option(help="Database; default AGENTOS_DSN, else the embedded one.")] = None,
    migrate: Annotated[bool, typer.Option("--migrate", help="Bring the schema to this version first.")] = False,
    listen: Annotated[bool, typer.Option(help="Be woken by NOTIFY; --no-listen for PgBouncer: poll only.")] = True,
    health_port: Annotated[
        int | None,
        typer.Option(help="Serve /livez, /readyz, /metrics; 0 picks one. Default: AGENTOS_HEALTH_PORT, else none."),
    ] = None,
    ttl: Annotated[
        float | None, typer.Option(help="Seconds without a beat until it counts as dead. Default 15.")
    ] = None,
    beat: Annotated[float | None, typer.Option(help="Seconds between beats; at most a third of the TTL.")] = None,
    poll: Annotated[float | None, typer.Option(help="Seconds between looks for work when idle. Default 1.")] = None,
    grace: Annotated[float | None, typer.Option(help="Seconds for running handlers at the end. Default 25.")] = None,
    label: Annotated[str | None, typer.Option(help="A name for people; never an identity.")] = None,
    healthcheck: Annotated[
        bool,
        typer.Option("--healthcheck", help="Ask the health port of this host and exit: 0 it lives, 1 it does not."),
    ] = False,
    ready: Annotated[bool, typer.Option("--ready", help="With --healthcheck: whether it serves.")] = False,
    solo: Annotated[bool, typer.Option("--solo", hidden=True)] = False,
) -> None:
    """Parse, check, serve."""
    if healthcheck or ready:  # --healthcheck is answered before this module is imported
        raise typer.BadParameter("--ready goes with --healthcheck, and both only with agentos-worker itself")
    try:
        settings = load_settings(
            dsn=dsn,
            concurrency=concurrency,
            prefetch=prefetch,
            ttl_s=ttl,
            beat_s=beat,
            poll_s=poll,
            grace_s=grace,
            health_port=health_port,
        )
        configure_logs(settings.log_format, settings.log_level)
        _require_known(allow_kind or [])
        options = Options(
            settings=settings, app=load_app(app), queues=tuple(queue or ["default"]), allow_shell="shell" in
            (allow_kind or []),
            listen=listen and not solo, solo=solo, health_port=None if solo else settings.health_port, label=label,
            child_argv=None if solo else tuple(sys.argv[1:]), app_reference=app,
        )  # fmt: skip
        tracing.install("agentos-worker")  # after the app's import: it may have set up a tracer of its own
        _freeze()
        uvloop.run(_serve(options, may_migrate=migrate))
    except AgentOSError as exc:
        typer.echo(f"agentos-worker: {exc}", err=True)
        raise typer.Exit(3 if isinstance(exc, DatabaseError) else 2) from exc
    finally:
        tracing.flush()


def _require_known(kinds: list[str]) -> None:
    if unknown := set(kinds) - {"shell"}:
        raise typer.BadParameter(f"--allow-kind {', '.join(sorted(unknown))}: only shell has to be allowed")


def _freeze() -> None:
    """Modules and the app stay until the end: to look through them took 25 ms each time, in which no handler ran."""
    gc.collect()
    gc.freeze()


async def _serve(options: Options, *, may_migrate: bool) -> None:
    target = await asyncio.to_thread(open_target, options.settings, may_migrate=may_migrate)
    await asyncio.to_thread(require_role, target.dsn)
    if not options.solo:  # the worker that started it has said so
        await asyncio.to_thread(warn_if_unsafe, target.dsn)
    process = Worker(options, target)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.stop)
    loop.add_signal_handler(DRAIN_SIGNAL, process.drain)
    await process.run()
    log = get_logger(__name__)
    log.info("stopped")
    if abandoned:
        log.warning("handlers are left that do not end; leaving without them", count=len(abandoned))
        logging.shutdown()
        tracing.flush()
        os._exit(0)  # the event loop would wait for them for ever
