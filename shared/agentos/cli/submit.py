"""`agentos submit`."""

import time
from typing import Annotated
from uuid import uuid4

import typer

from agentos.cli.budget_options import MaxCalls, MaxCost, MaxTokens, MaxWall, OnExceed, budget_from
from agentos.cli.database import opened
from agentos.cli.follow import Steps, follow, followed, tell_end, tell_if_nobody_serves
from agentos.cli.options import AsJson, Dsn, Priority, Timeout
from agentos.cli.output import out, print_json
from agentos.cli.payload import read_payload
from agentos.core.payloads import BUILT_IN
from agentos.core.tracing import setup as tracing
from agentos.core.tracing.submitting import submitting
from agentos.store.calls import tasks, workers
from agentos.store.calls.budgets import with_budget
from agentos.store.canonical import canonical_text
from agentos.store.connect import Database
from agentos.store.errors import InvalidInput
from agentos.store.run import Call


def submit(  # noqa: PLR0913, PLR0917  one argument for each option
    kind: Annotated[str, typer.Argument(metavar="KIND", help="Of a handler, or built in: shell, llm, plan.")],
    payload: Annotated[
        str, typer.Argument(metavar="PAYLOAD", help="A JSON object; @FILE reads a file, - reads stdin.")
    ] = "{}",
    task_id: Annotated[str | None, typer.Option(metavar="ID", help="The task's id (default: a new one).")] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", metavar="KEY", help="Idempotency key: said again, the same task (with --unique-for, for so long)."
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="For people (default: the kind).")] = None,
    queue: Annotated[str, typer.Option(help="Which workers may take it.")] = "default",
    priority: Priority = 0,
    max_attempts: Annotated[int, typer.Option(min=1, max=1000, help="Fail for good after so many failures.")] = 5,
    version: Annotated[
        int | None, typer.Option("--version", min=0, max=1_000_000, help="Of its handler (default: the newest run).")
    ] = None,
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Whose it is: tenants take turns.")] = "",
    concurrency_key: Annotated[str, typer.Option(metavar="KEY", help="What limits per key count it by.")] = "",
    unique_for: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0.001, help="The same kind and payload so long: the same task."),
    ] = None,
    delay: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="Not before so long from now.")] = 0.0,
    deadline: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0.001, help="Fail unless it has ended so long from now.")
    ] = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    max_calls: MaxCalls = None,
    max_wall: MaxWall = None,
    on_exceed: OnExceed = "park",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end, as `agentos wait` does.")] = False,
    timeout: Timeout = None,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """Submit a task of one item, and print its id.

    Submitting the same --task-id twice is refused (exit code 2). With --key the same submit said again prints the id of
    the first; another payload under the same key is refused.

    \b
    Examples:
      agentos submit shell '{"command": "date"}' --wait
      agentos submit research '{"topic": "tides"}' --task-id tides --priority 5
      agentos submit report @report.json --delay 3600
      agentos submit research '{"topic": "tides"}' --max-cost 2.50 --on-exceed fail
      jq -n '{topic: "tides"}' | agentos submit research -
    """
    if timeout is not None and not wait:
        raise InvalidInput(
            "--timeout is for waiting, and --wait is not given", hint="add --wait, or leave --timeout out"
        )
    budget = budget_from(max_tokens, max_cost, max_calls, max_wall, on_exceed)
    body = canonical_text(read_payload(kind, payload), what="payload")
    task_id = task_id or f"task-{uuid4().hex}"
    started = time.monotonic()
    tracing.install("agentos")
    with opened(dsn) as db:
        call = tasks.submit(
            task_id, kind, title or kind, body, queue=queue, priority=priority, max_attempts=max_attempts,
            delay_s=delay, version=0 if kind in BUILT_IN and version is None else version,
            tenant=tenant, limit_key=concurrency_key,
        )  # fmt: skip
        call = with_budget(call, [task_id], budget.limits, budget.on_exceed) if budget else call
        call = call if deadline is None else tasks.with_deadline(call, [task_id], deadline)
        with submitting(kind, queue, [task_id]) as carry:
            former, item = _write(db, carry(call) if carry else call, key, (task_id, kind, body), unique_for)
        tracing.flush()
        task_id = former or task_id
        db.run(workers.wake([queue]))  # its own statement: inside submit it would halve the rate
        tell_if_nobody_serves(db, queue, {kind})
        if not wait:
            return (
                print_json({"task_id": task_id, "item_id": item, "created": former is None})
                if json
                else out.print(task_id)
            )
        with followed(task_id):
            progress = follow(db, task_id, timeout_s=timeout, changed=Steps(task_id))
    raise typer.Exit(tell_end(task_id, progress, took_s=time.monotonic() - started, as_json=json))


def _write(
    db: Database, call: Call[int], key: str | None, asked: tuple[str, str, str], unique_for: float | None
) -> tuple[str | None, int | None]:
    """The task that was submitted under the key before, and the new item. `asked`: task_id, kind, payload."""
    if key is None and unique_for is None:
        return None, db.run(call)
    from agentos.core.app import keyed  # noqa: PLC0415  start-up: it brings the whole API

    if unique_for is not None:
        return keyed.submit_keyed(db, None, call, keyed.unique_reservation(key, *asked, unique_for)), None
    return keyed.submit_keyed(db, None, call, keyed.reservation(key or "", *asked)), None
