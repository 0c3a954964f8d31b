"""Answering what only a person can tell about a task: which questions are open, and what follows from an answer."""

import getpass
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from agentos.core.flows.results import pack
from agentos.store.calls import coordinator, tasks, workers
from agentos.store.calls.doubts import Answer, Doubt, open_doubts, resolve_doubt
from agentos.store.errors import AnswerRefused, InvalidInput
from agentos.store.run import Flow, do

NOTHING_TOLD: dict[str, Any] = {"bash": {"exit_code": 0, "stdout": "", "stderr": "", "duration_s": 0, "truncated": 0}}
"""What a call that a person says was done has returned, if he does not say what: by tool, otherwise null."""
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Resolved:
    """`became`: of the item: ready, waiting (another question of it is open), failed, or noted: it had failed on the
    doubt before, and goes on when the task is retried.
    """

    doubt: Doubt
    answer: Answer
    by: str
    became: str


def resolve(
    task_id: str, answer: Answer, result: Any = None, *, call: str | None = None, by: str | None = None
) -> Flow[Resolved]:
    """Answer an open question of a task. `call`: the first characters of its doubt_id; may be left out if only one is
    open. `result`: with `done`, what the call returned. `by`: default, this user's name.

    Raises AnswerRefused: if nothing (or, without `call`, more than one thing) is asked, or it was answered before.
    InvalidInput: if the answer is not known. InvalidValue, ValueTooLarge: if the result cannot be stored. UnknownTask.
    """
    if answer not in get_args(Answer) or (result is not None and answer != "done"):
        raise InvalidInput(
            f"the answer is {answer!r} with the result {result!r:.80}",
            hint=f"answer with one of {', '.join(get_args(Answer))}; only `done` has a result",
        )
    doubt = _meant(task_id, (yield from do(open_doubts(task_id, _MOST))), call)
    packed = pack(NOTHING_TOLD.get(doubt.tool_name) if result is None else result) if answer == "done" else None
    if packed is not None and packed.refusal is not None:
        raise packed.refusal
    who = by or getpass.getuser()
    became = yield from do(
        resolve_doubt(
            task_id, doubt.doubt_id, answer, result=packed.text if packed else None,
            exit_code=packed.exit_code if packed else None, by=who,
        )
    )  # fmt: skip
    if became == "ready":
        yield from wake_task(task_id)
    return Resolved(doubt, answer, who, became)


def _meant(task_id: str, open_now: Sequence[Doubt], call: str | None) -> Doubt:
    found = [each for each in open_now if call is None or str(each.doubt_id).startswith(call.lower())]
    if len(found) == 1:
        return found[0]
    told = "\n".join(f"{each.doubt_id} {each.message}" for each in (found or open_now)[:20]) or None
    if not open_now:
        raise AnswerRefused(f"nothing is asked about task {task_id}", hint="what is: agentos doubts")
    raise AnswerRefused(
        f"{len(found)} open questions of task {task_id} are meant" + (f" by {call}" if call else ""), detail=told,
        hint=f"name one: agentos resolve {task_id}/{str((found or open_now)[0].doubt_id)[:8]} ...",
    )  # fmt: skip


def wake_task(task_id: str) -> Flow[None]:
    """Tell the workers of a task's queues that it may have ready items."""
    items = yield from do(tasks.task_items(task_id))
    queues = yield from do(coordinator.queues_of([each.item_id for each in items]))
    yield from do(workers.wake(queues))
