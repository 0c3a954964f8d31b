"""Many tasks in one transaction, in messages of a size that the server takes."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import psycopg

from agentos.core.task_id import new_task_ids
from agentos.store.calls import tasks
from agentos.store.connect import Database
from agentos.store.errors import InvalidInput
from agentos.store.run import raise_mapped, run_call

BATCH = 10_000
BATCH_CHARACTERS = 32 * 1024 * 1024
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


def submit_all(
    db: Database, conn: psycopg.Connection[Any] | None, ids: Sequence[str], texts: Sequence[str], **how: Any
) -> None:
    """All or none; on `conn` within its transaction. Raises TaskExists."""
    batches = list(_batches(texts))
    if not batches:
        return
    with nullcontext(conn) if conn is not None else db.connection() as target:
        alone = conn is None and len(batches) == 1  # one statement is a transaction by itself
        try:
            with nullcontext() if alone else target.transaction():
                for start, end in batches:
                    run_call(target, tasks.submit_many(ids[start:end], payloads=texts[start:end], **how))
        except psycopg.Error as exc:  # of BEGIN, COMMIT or SAVEPOINT
            raise_mapped(exc)


def _batches(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """From and to: so many payloads, of so many characters together (or a single one that is larger)."""
    start, size = 0, 0
    for at, text in enumerate(texts):
        if at > start and (at - start == BATCH or size + len(text) > BATCH_CHARACTERS):
            yield start, at
            start, size = at, 0
        size += len(text)
    if start < len(texts):
        yield start, len(texts)
