"""`agentos doubts` and `agentos resolve`: calls that nobody knows the end of."""

from collections.abc import Iterator
from json import JSONDecodeError
from typing import Annotated, Any

import typer

from agentos.cli.database import opened
from agentos.cli.options import AsJson, Dsn
from agentos.cli.output import compact, err, out, print_json, print_table
from agentos.core.doubts import Resolved
from agentos.core.doubts import resolve as answer_doubt
from agentos.store.calls.doubts import Answer, Doubt, open_doubts
from agentos.store.calls.tasks import get_task
from agentos.store.canonical import loads
from agentos.store.connect import Database
from agentos.store.errors import InvalidInput, UnknownTask
from agentos.store.run import drive

SHORT = 8
"""Characters of a doubt_id that name it."""


def doubts(
    task: Annotated[str | None, typer.Argument(metavar="[TASK]", help="Only this task's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 100,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """List the calls that were begun and never finished, and about which a person has to decide.

    parked: the item waits for the answer. failed: it failed on it; answer, then `agentos retry TASK`. A program that
    changed under its record is listed too, with the recorded calls and the one that it asks now.

    \b
    Examples:
      agentos doubts
      agentos doubts task-123 --json | jq '.doubts[].idempotency_key'
      agentos resolve task-123/5f3a9c01 --done '{"charged": 1}'
    """
    with opened(dsn) as db:
        if task is not None and db.run(get_task(task)) is None:
            raise UnknownTask(f"no task has the id {task!r}")
        found = db.run(open_doubts(task, limit))
    if json:
        print_json({"doubts": found})
        return
    if not found:
        err.print("nothing is in doubt")
    columns = ("task", "doubt", "item", "state", "tool", "arguments", "host", "begun", "ran", "idempotency key")
    print_table(columns, [_row(each) for each in found if each.sort == "call"], title="Calls in doubt")
    for each in found:
        if each.sort == "program":
            out.print("\n".join(_changed(each)))


def _row(each: Doubt) -> tuple[object, ...]:
    return (
        each.task_id, str(each.doubt_id)[:SHORT], each.item_key or each.item_id, "parked" if each.parked else "failed",
        each.tool_name, compact(each.arguments, 80), each.host, each.begun_at, each.executions, each.idempotency_key,
    )  # fmt: skip


def _changed(each: Doubt) -> Iterator[str]:
    yield f"{each.task_id}/{str(each.doubt_id)[:SHORT]} {'parked' if each.parked else 'failed'}: the program changed"
    yield each.message


def resolve(
    doubt: Annotated[str, typer.Argument(metavar="TASK[/DOUBT]", help="The task, and which doubt if it has several.")],
    result: Annotated[
        str | None, typer.Argument(metavar="[RESULT]", help="With --done: what the call returned, as JSON.")
    ] = None,
    done: Annotated[bool, typer.Option("--done", help="It was done: the handler gets RESULT.")] = False,
    not_done: Annotated[bool, typer.Option("--not-done", help="It was not done: it runs again.")] = False,
    go_on: Annotated[bool, typer.Option("--continue", help="A changed program: what it asks runs anew.")] = False,
    fail: Annotated[bool, typer.Option("--fail", help="The item fails.")] = False,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Who says so (default: your user name).")] = None,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """Say what became of a call in doubt, so that its task goes on; nobody is asked twice.

    --done replays RESULT as what the call returned (default: null; of bash, exit code 0). --not-done runs it again
    under the same idempotency key. --fail fails the item. For a program that changed: --continue, --fail, or
    `agentos rewind`. An answer counts for the execution that was shown: if it ran again since, it is refused.

    \b
    Examples:
      agentos resolve task-123 --not-done
      agentos resolve task-123/5f3a9c01 --done '{"charged": 1}' --by alice
    """
    said: dict[Answer, bool] = {"done": done, "not_done": not_done, "continue": go_on, "fail": fail}
    chosen = [answer for answer, given in said.items() if given]
    if len(chosen) != 1 or (result is not None and not done):
        raise InvalidInput(
            "say what became of it", hint="one of --done [RESULT], --not-done, --continue, --fail; RESULT with --done"
        )
    value = _parsed(result) if result is not None else None
    with opened(dsn) as db:
        task, call = _named(db, doubt)
        resolved = drive(db, answer_doubt(task, chosen[0], value, call=call, by=by))
    if json:
        print_json({"task_id": task, **_told(resolved)})
        return
    said_of = {
        "ready": f"{task} goes on",
        "waiting": f"another question is open: agentos doubts {task}",
        "failed": "its item failed",
        "noted": f"now: agentos retry {task}",
    }
    out.print(f"{resolved.answer.replace('_', ' ')}, says {resolved.by}; {said_of[resolved.became]}")


def _told(resolved: Resolved) -> dict[str, Any]:
    return {
        "doubt_id": resolved.doubt.doubt_id, "answer": resolved.answer, "by": resolved.by, "became": resolved.became,
    }  # fmt: skip


def _named(db: Database, given: str) -> tuple[str, str | None]:
    """Task ids may have slashes."""
    if "/" not in given or db.run(get_task(given)) is not None:
        return given, None
    task, _, call = given.rpartition("/")
    return task, call


def _parsed(text: str) -> Any:
    try:
        return loads(text, what="RESULT")
    except JSONDecodeError as error:
        raise InvalidInput(f"RESULT is not JSON: {error}", hint="""such as '{"charged": 1}'""") from error
