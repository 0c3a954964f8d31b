"""Submitting, watching and operating tasks."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString, TypeVar

from agentos.store.canonical import loads
from agentos.store.codec import seal, seal_optional
from agentos.store.run import Call

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task as the view `agentos.tasks` shows it."""

    task_id: str
    kind: str | None
    title: str
    queue: str
    status: str
    reason: str | None
    payload: Any
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """Where a task stands. `kinds`: of its open items. `next_run_in_s`: until its next delayed item, if any."""

    status: str
    reason: str | None
    result: Any
    single: bool
    open: int
    done: int
    held: int
    next_run_in_s: float | None
    kinds: tuple[str, ...]
    purged_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether the status is final."""
        return self.status in ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class ItemRow:
    """A work item and where it is: ready, held, scheduled, waiting or outcome."""

    task_id: str
    item_id: int
    seq: int
    key: str | None
    kind: str
    queue: str
    place: str
    attempt: int
    failures: int
    crashes: int
    worker_id: int | None
    at: datetime | None
    status: str | None
    result: Any
    error: Any
    claimed_at: datetime | None
    payload: Any
    max_attempts: int
    version: int = 0


_TASK: LiteralString = (
    "SELECT task_id, kind, title, queue, status, reason, payload::text, created_at, finished_at FROM "
)


def _json(text: str | None) -> Any:
    return None if text is None else loads(text)


def _task(row: Any) -> TaskRow:
    return TaskRow(**{**dict(row), "payload": _json(row["payload"])})


def _array(texts: Sequence[str]) -> str:
    return f"[{','.join(map(seal, texts))}]"


SUBMIT_BLANKS = (0, 3)
"""Where the arguments of `submit` have the task's id and its payload (sealed), those of `submit_many` all of them."""
_SUBMIT: LiteralString = (
    "SELECT agentos.submit($1::text, $2::text, $3::text, $4::text, $5::text, $6::integer, $7::integer, $8::real,"
    " $9::float8, $10::integer, $11::text, $12::text"
)
HAND_OVER: LiteralString = f"{_SUBMIT}, true) AS item_id"
"""`submit` that hands its item to a worker that waits for it, if there is one. `workers.wake_behind` must follow it in
the same session: it tells whom.
"""


def submit(  # noqa: PLR0913  as the function has them
    task_id: str, kind: str, title: str, payload: str, *, queue: str = "default", priority: int = 0, max_attempts:
    int = 5,
    timeout_s: float | None = None, delay_s: float = 0.0, version: int | None = None, tenant: str = "", limit_key: str
    = "",
) -> Call[int]:  # fmt: skip
    """A task of one item. `payload`: JSON text. `version`: of the handler that must run it; None: the newest
    that a worker runs. `tenant`, `limit_key`: what its lane is shared and limited by; "": none. Returns the item's id.
    Raises TaskExists: if the id is taken. QueueFull.
    """
    return Call(
        f"{_SUBMIT}) AS item_id",
        (
            task_id,
            kind,
            title,
            seal(payload),
            queue,
            priority,
            max_attempts,
            timeout_s,
            float(delay_s),
            version,
            tenant,
            limit_key,
        ),
        lambda rows: int(rows[0]["item_id"]),
    )


def submit_key(key: str, task_id: str, kind: str, payload_sha256: str) -> Call[str | None]:
    """Reserve an idempotency key for a task that this transaction submits. None: go on and submit it; else the task
    that was submitted under the key. Raises IdempotencyConflict: if that had another kind or payload.
    """
    return Call(
        "SELECT agentos.submit_key($1::text, $2::text, $3::text, $4::text) AS task_id",
        (key, task_id, kind, payload_sha256),
        lambda rows: rows[0]["task_id"],
    )


def submit_unique(key: str, task_id: str, kind: str, payload_sha256: str, window_s: float) -> Call[str | None]:
    """As `submit_key`, for `window_s` seconds from the first submit on; other content under the key is the same."""
    return Call(
        "SELECT agentos.submit_unique($1::text, $2::text, $3::text, $4::text, $5::float8) AS task_id",
        (key, task_id, kind, payload_sha256, float(window_s)),
        lambda rows: rows[0]["task_id"],
    )


def with_deadline(submit: Call[T], task_ids: Sequence[str], deadline_s: float) -> Call[T]:
    """The call that submits these tasks and sets when they must have ended, in one statement: both, or neither."""
    at = len(submit.args)
    return Call(
        f"{submit.sql}, agentos.set_deadline(${at + 1}::text[], ${at + 2}::float8)",
        (*submit.args, list(task_ids), float(deadline_s)),
        submit.read,
    )


def expire_tasks(limit: int = 1000) -> Call[int]:
    """End tasks that have passed their deadline, as failed. Returns how many."""
    return Call("SELECT agentos.expire_tasks($1::integer) AS n", (limit,), lambda rows: int(rows[0]["n"]))


def submit_many(  # noqa: PLR0913  as the function has them
    task_ids: Sequence[str], kind: str, title: str, payloads: Sequence[str], *, queue: str = "default",
    priority: int = 0, max_attempts: int = 5, timeout_s: float | None = None, delay_s: float = 0.0,
    version: int | None = None, tenant: str = "", limit_key: str = "",
) -> Call[tuple[int, ...]]:  # fmt: skip
    """A task of one item for each id and payload (JSON text), all or none. Returns the items' ids in that order.

    Raises TaskExists: if an id is taken, or is there twice.
    """
    return Call(
        "SELECT agentos.submit_many($1::text[], $2::text, $3::text, $4::text, $5::text, $6::integer, $7::integer,"
        " $8::real, $9::float8, $10::integer, $11::text, $12::text) AS item_ids",
        (
            list(task_ids),
            kind,
            title,
            _array(payloads),
            queue,
            priority,
            max_attempts,
            timeout_s,
            float(delay_s),
            version,
            tenant,
            limit_key,
        ),
        lambda rows: tuple(rows[0]["item_ids"]),
    )


def submit_array(kind: str, title: str, **how: Any) -> Call[tuple[int, ...]]:
    """`submit_many` of none, whose ids and payloads are texts at SUBMIT_BLANKS: an array, and a JSON array."""
    call = submit_many([], kind, title, [], **how)
    return call._replace(args=("{}", *call.args[1:]))


def create_task(
    task_id: str, title: str, *, kind: str | None = None, payload: str | None = None, queue: str = "default",
    items: str = "[]", priority: int = 0,
) -> Call[int]:  # fmt: skip
    """A task of many items, or of none. `items`: JSON text, a list of {key, kind, payload, depends_on, queue,
    max_attempts, timeout_s, version, tenant, limit_key}, payloads sealed (`seal_payloads`). Returns how many.

    Raises TaskExists, InvalidDependency, QueueFull.
    """
    return Call(
        "SELECT agentos.create_task($1::text, $2::text, $3::text, $4::text, $5::text, $6::text, $7::integer) AS items",
        (task_id, title, kind, seal_optional(payload), queue, items, priority),
        lambda rows: int(rows[0]["items"]),
    )


NewItem = tuple[str, str, str, str | None, int | None, float | None, int | None]
"""Key, kind, payload as JSON text, queue, max_attempts, timeout_s, version."""


def add_items(task_id: str, items: Sequence[NewItem], *, queue: str = "default", priority: int = 0) -> Call[int]:
    """More items that depend on none, for a task of many items. Returns how many.

    Raises InvalidDependency: if a key is taken. NotRetryable: if the task has ended, is cancelled, or is a task of one
    item. UnknownTask.
    """
    columns = [list(column) for column in zip(*items, strict=True)] or [[] for _ in range(7)]
    return Call(
        "SELECT agentos.add_items($1::text, $2::text, $3::integer, $4::text[], $5::text[], $6::text, $7::text[],"
        " $8::integer[], $9::real[], $10::integer[]) AS n",
        (task_id, queue, priority, *columns[:2], _array(columns[2]), *columns[3:]),
        lambda rows: int(rows[0]["n"]),
    )


def add_alike(
    task_id: str, kind: str, keys: Sequence[str], payloads: str | Sequence[str], *, queue: str = "default",
    priority: int = 0,
) -> Call[int]:  # fmt: skip
    """`add_items` for items of one kind that say nothing but key and payload. `payloads`: JSON texts, or all of them as
    one JSON array, in which nothing is to be sealed. Raises as `add_items`.
    """
    return Call(
        "SELECT agentos.add_alike($1::text, $2::text, $3::integer, $4::text, $5::text, $6::text) AS n",
        (
            task_id, queue, priority, kind, json.dumps(keys, ensure_ascii=False),
            payloads if isinstance(payloads, str) else _array(payloads),
        ),
        lambda rows: int(rows[0]["n"]),
    )  # fmt: skip


def begin_run(task_id: str, worker_id: int) -> Call[str | None]:
    """Get ready to run a task outside the pool. Returns its status if it has ended. Raises TaskHeld, UnknownTask."""
    return Call(
        "SELECT agentos.begin_run($1::text, $2::bigint) AS status", (task_id, worker_id), lambda rows: rows[0]["status"]
    )


def task_progress(task_id: str) -> Call[TaskProgress]:
    """Where a task stands. Raises UnknownTask."""

    def read(rows: Any) -> TaskProgress:
        row = dict(rows[0])
        kinds = tuple(row.pop("foreign_kinds") or ())
        return TaskProgress(**{**row, "result": _json(row["result"])}, kinds=kinds)

    return Call("SELECT * FROM agentos.task_progress($1::text)", (task_id,), read)


def get_task(task_id: str) -> Call[TaskRow | None]:
    """The task, or None."""
    return Call(
        _TASK + "agentos.read_task($1::text)",
        (task_id,),
        lambda rows: _task(rows[0]) if rows else None,
    )


def new_task(task_id: str) -> Call[TaskRow]:
    """A task of many items as it was made a moment ago: created."""
    return Call(_TASK + "agentos.read_new_task($1::text)", (task_id,), lambda rows: _task(rows[0]))


def list_tasks(limit: int = 50, status: str | None = None) -> Call[tuple[TaskRow, ...]]:
    """The newest tasks, newest first."""
    return Call(
        _TASK + "agentos.list_tasks($1::integer, $2::text)",
        (limit, status),
        lambda rows: tuple(_task(row) for row in rows),
    )


def task_items(task_id: str) -> Call[tuple[ItemRow, ...]]:
    """The task's items in order."""

    def read(rows: Any) -> tuple[ItemRow, ...]:
        return tuple(
            ItemRow(**{**dict(row), **{name: _json(row[name]) for name in ("payload", "result", "error")}})
            for row in rows
        )

    return Call(
        "SELECT task_id, item_id, seq, key, kind, queue, place, attempt, failures, crashes, worker_id, at, status,"
        " result::text, error::text, claimed_at, payload::text, max_attempts::integer, version"
        " FROM agentos.read_items($1::text)",
        (task_id,),
        read,
    )


@dataclass(frozen=True, slots=True)
class Unserved:
    """A task with an item that is ready and that no living worker runs. `served`: versions of its kind that some do."""

    task_id: str
    queue: str
    kind: str
    version: int
    served: tuple[int, ...]

    @property
    def reason(self) -> str:
        """For people."""
        if not self.served:
            return f"no living worker runs {self.kind} in queue {self.queue}"
        have = ", ".join(map(str, self.served))
        return f"no living worker runs version {self.version} of {self.kind} in queue {self.queue}, only {have}"


def unserved(task_ids: Sequence[str]) -> Call[dict[str, Unserved]]:
    """Which of these tasks wait for a worker that does not live, by id."""
    return Call(
        "SELECT * FROM agentos.unserved($1::text[])",
        (list(task_ids),),
        lambda rows: {row["task_id"]: Unserved(**{**dict(row), "served": tuple(row["served"])}) for row in rows},
    )


CANCELLED = "cancelled by request"
"""The reason, when none is given."""


def cancel_task(task_id: str, reason: str = CANCELLED) -> Call[str]:
    """Ask for the end of a task. Returns its status: `running` until what runs has been told. Raises UnknownTask."""
    return Call(
        "SELECT agentos.cancel_task($1::text, $2::text) AS status",
        (task_id, reason),
        lambda rows: str(rows[0]["status"]),
    )


def pause_task(task_id: str) -> Call[str]:
    """Pause a task and its children. Returns its status: `running` until what runs is parked. Raises UnknownTask."""
    return Call("SELECT agentos.pause_task($1::text) AS status", (task_id,), lambda rows: str(rows[0]["status"]))


def resume_task(task_id: str) -> Call[tuple[int, ...]]:
    """End the pause of a task and of its children. Returns the items that are ready again. Raises UnknownTask."""
    return Call("SELECT agentos.resume_task($1::text) AS woken", (task_id,), lambda rows: tuple(rows[0]["woken"]))


def retry_task(task_id: str) -> Call[int]:
    """Open the items of a failed or cancelled task again. Returns how many. Raises NotRetryable, UnknownTask."""
    return Call("SELECT agentos.retry_task($1::text) AS n", (task_id,), lambda rows: int(rows[0]["n"]))


def give_up(task_id: str, worker_id: int, reason: str) -> Call[int]:
    """Fail a task with everything of it that is open. Returns how many items. Raises TaskHeld, UnknownTask."""
    return Call(
        "SELECT agentos.give_up($1::text, $2::bigint, $3::text) AS n",
        (task_id, worker_id, reason),
        lambda rows: int(rows[0]["n"]),
    )


def misplaced_items() -> Call[tuple[dict[str, Any], ...]]:
    """Items that are nowhere or in two places. Must be empty, always."""
    return Call("SELECT * FROM agentos.misplaced_items", (), lambda rows: tuple(dict(row) for row in rows))
