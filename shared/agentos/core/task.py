"""`TaskManager`: create tasks and look at them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Any, Self

from agentos.core.payloads import check_payload
from agentos.core.plan import Plan, to_items
from agentos.core.task_id import new_task_id
from agentos.core.task_items import calls_of, checked_items
from agentos.core.tracing.submitting import Carried, submitting
from agentos.core.versions import version_of
from agentos.store.calls import tasks
from agentos.store.calls.tasks import TaskRow
from agentos.store.canonical import canonical_text
from agentos.store.connect import Database
from agentos.store.errors import InvalidInput, UnknownTask
from agentos.store.pipeline import run_all
from agentos.store.run import Call
from agentos.store.sealed_items import seal_payloads

ITEMS_LIMIT = 64 * 1024 * 1024
"""Bytes of JSON that the items of one task may have together."""
BATCH = 1000
"""Items that depend on none are sent so many at a time: the next are made while the server writes the last."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task as it stood when it was read. `status`: created, running, waiting, completed, failed or cancelled.

    `reason` says why it failed or was cancelled. Times are the database's.
    """

    task_id: str
    title: str
    kind: str | None
    status: str
    reason: str | None
    payload: Any
    queue: str
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def from_row(cls, row: TaskRow) -> Self:
        """The task of a row of the view `agentos.tasks`."""
        return cls(
            task_id=row.task_id,
            title=row.title,
            kind=row.kind,
            status=row.status,
            reason=row.reason,
            payload=row.payload,
            queue=row.queue,
            created_at=row.created_at,
            finished_at=row.finished_at,
        )


class TaskManager:
    """Creates, reads and cancels tasks. `db`: default, the database of AGENTOS_DSN, else the embedded one."""

    def __init__(self, db: Database | None = None) -> None:
        self._db = db or Database.default()

    def create_task(
        self, title: str, *, task_id: str | None = None, kind: str | None = None, payload: Any = None,
        items: Sequence[Mapping[str, Any]] | Plan | None = None, queue: str = "default", priority: int = 0,
        max_attempts: int = 5, timeout_s: float | None = None, version: int | None = None,
    ) -> Task:  # fmt: skip
        """Create a task. `task_id`: default, one is made.

        With `kind`, a task of one work item of that kind, with this payload, `max_attempts`, `timeout_s` and handler
        `version` (default: the newest that a worker runs). With
        `items`, one of many: each a dict with kind, payload, key, depends_on (keys of other items), queue,
        max_attempts, timeout_s and version, of which only kind is needed; or a `Plan`. With neither, nothing can be
        claimed: the task is a title to plan for, which `TaskRunner` does.

        Raises TaskExists: if the `task_id` is taken. InvalidArguments: if the payload does not fit a
        built-in kind. InvalidPlan: if the items do not fit together. InvalidValue,
        ValueTooLarge: if JSON cannot hold the payload. InvalidInput: if a title or id is empty or too long.
        """
        task_id = new_task_id() if task_id is None else _named("task_id", task_id, 255)
        title = _named("title", title, 10_000)
        if not 1 <= max_attempts <= 1000 or (timeout_s is not None and timeout_s <= 0):
            raise InvalidInput(
                f"max_attempts is {max_attempts}, timeout_s is {timeout_s}",
                hint="max_attempts takes 1 to 1000, timeout_s more than 0",
            )
        if kind is not None and items is None:
            if isinstance(payload, Mapping | None):
                check_payload(kind, payload or {})
            body = canonical_text({} if payload is None else payload, what="payload")
            call = tasks.submit(
                task_id, _named("kind", kind, 255), title, body, queue=queue, priority=priority,
                max_attempts=max_attempts, timeout_s=timeout_s, version=version_of(kind, None, version),
            )  # fmt: skip
            with submitting(kind, queue, [task_id]) as carry:
                self._db.run(carry(call) if carry else call)
        else:
            body = canonical_text(payload, what="payload")
            listed = to_items(items) if isinstance(items, Plan) else checked_items(items or ())
            make = partial(tasks.create_task, task_id, title, kind=kind, payload=body, queue=queue, priority=priority)
            with submitting(kind or "plan", queue, [task_id]) as carry:
                self._make(task_id, listed, make, carry or (lambda call: call), queue, priority)
            return Task.from_row(self._db.run(tasks.new_task(task_id)))
        return self.get_task(task_id)

    def _make(
        self, task_id: str, listed: Sequence[Mapping[str, Any]], make: Callable[..., Call[Any]], carry: Carried,
        queue: str, priority: int,
    ) -> None:  # fmt: skip
        """The task with its items; very many of them, of which none needs another, in batches."""
        if len(listed) > BATCH and not any(item.get("depends_on") for item in listed):
            more = calls_of(task_id, listed, BATCH, ITEMS_LIMIT, queue=queue, priority=priority)
            with self._db.connection() as conn:
                run_all(conn, chain([carry(make())], more))
        else:
            text = canonical_text(seal_payloads(listed), limit=ITEMS_LIMIT, what="items")
            self._db.run(carry(make(items=text)))

    def get_task(self, task_id: str) -> Task:
        """The task as it stands. Raises UnknownTask: if there is none."""
        row = self._db.run(tasks.get_task(task_id))
        if row is None:
            raise UnknownTask(
                f"no task has the id {task_id!r}", hint="create it first: TaskManager().create_task(title, task_id=...)"
            )
        return Task.from_row(row)

    async def aget_task(self, task_id: str) -> Task:
        """The same, awaited."""
        return await asyncio.to_thread(self.get_task, task_id)

    def list_tasks(self, limit: int = 50, status: str | None = None) -> list[Task]:
        """The newest tasks, newest first; with `status`, those that have it."""
        return [Task.from_row(row) for row in self._db.run(tasks.list_tasks(limit, status))]

    async def alist_tasks(self, limit: int = 50, status: str | None = None) -> list[Task]:
        """The same, awaited."""
        return await asyncio.to_thread(self.list_tasks, limit, status)

    def cancel_task(self, task_id: str, reason: str = tasks.CANCELLED) -> str:
        """Ask for the end of a task. Returns its status: running, until what runs has been told. Raises UnknownTask."""
        return self._db.run(tasks.cancel_task(task_id, reason))

    async def acancel_task(self, task_id: str, reason: str = tasks.CANCELLED) -> str:
        """The same, awaited."""
        return await asyncio.to_thread(self.cancel_task, task_id, reason)


def _named(what: str, value: object, longest: int) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > longest:
        raise InvalidInput(
            f"{what} is {value!r:.80}, not a text of 1 to {longest} characters", hint=f"pass {what}= as such a text"
        )
    canonical_text(value, what=what)
    return value
