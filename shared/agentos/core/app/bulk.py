"""Many tasks in one transaction, in messages of a size that the server takes."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from agentos.core.budget import Budget
from agentos.core.task_id import new_task_ids
from agentos.store.calls import tasks
from agentos.store.calls.budgets import with_budget
from agentos.store.errors import InvalidInput
from agentos.store.run import Call

BATCH = 1000
"""The next are made while the server writes the last."""
BATCH_CHARACTERS = 16 * 1024 * 1024
"""A message of a gigabyte is more than Postgres takes, and the server keeps some copies of each."""


def checked_ids(task_ids: Sequence[str] | None, count: int) -> list[str]:
    """The ids given, or as many new ones. Raises InvalidInput: if they are not `count` texts of 1 to 255 characters."""
    if task_ids is None:
        return new_task_ids(count)
    if isinstance(task_ids, str) or len(task_ids) != count:
        raise InvalidInput(
            f"there are {count} payloads and task_ids is {task_ids!r:.80}",
            hint="pass a list with one id for each payload, or leave task_ids out",
        )
    for task_id in task_ids:
        if not _is_id(task_id):
            raise InvalidInput(
                f"the task_id {task_id!r:.80} is not a text of 1 to 255 characters", hint="choose another one"
            )
    return list(task_ids)


def _is_id(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= 255


def calls_of(
    ids: Sequence[str], texts: Iterable[str], keys: Sequence[str], *, budget: Budget | None = None,
    deadline_s: float | None = None, **how: Any,
) -> Iterator[Call[tuple[int, ...]]]:  # fmt: skip
    """The calls that make a task of each of `texts`, made one by one, for whoever runs all or none of them. `keys`: the
    limit key of each, "" for none; those of one key are together.
    """
    for key, batch_ids, batch in _batches(ids, texts, keys):
        call = tasks.submit_many(batch_ids, payloads=batch, limit_key=key, **how)
        if budget is not None:
            call = with_budget(call, batch_ids, budget.limits, budget.on_exceed)
        yield call if deadline_s is None else tasks.with_deadline(call, batch_ids, deadline_s)


def _batches(
    ids: Sequence[str], texts: Iterable[str], keys: Sequence[str]
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Key, ids and payloads: so many, of so many characters together (or a single one that is larger)."""
    open_: dict[str, tuple[list[str], list[str]]] = {}
    size = 0
    for task_id, text, key in zip(ids, texts, keys, strict=True):
        waiting = open_.get(key)
        if open_ and (size + len(text) > BATCH_CHARACTERS or (waiting is not None and len(waiting[0]) == BATCH)):
            for each, (batch_ids, batch) in open_.items():
                yield each, batch_ids, batch
            open_, size = {}, 0
        batch_ids, batch = open_.setdefault(key, ([], []))
        batch_ids.append(task_id)
        batch.append(text)
        size += len(text)
    for each, (batch_ids, batch) in open_.items():
        yield each, batch_ids, batch
