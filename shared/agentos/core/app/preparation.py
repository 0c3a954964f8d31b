"""From what is asked of an App to what is written: arguments checked, defaults of the handler filled in."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agentos.core.app.arguments import bind
from agentos.core.app.bulk import calls_of, checked_ids
from agentos.core.app.handler import Handler, check_deadline
from agentos.core.app.keyed import reservation, unique_reservation
from agentos.core.app.limits import checked_key, limit_key_of
from agentos.core.app.submission import OnDuplicate, Submission
from agentos.core.budget import Budget
from agentos.core.payloads import check_payload
from agentos.core.task_id import new_task_id
from agentos.core.versions import version_of
from agentos.store.calls import tasks
from agentos.store.calls.budgets import with_budget
from agentos.store.canonical import canonical_text
from agentos.store.errors import InvalidInput


def one_task(  # noqa: PLR0913  each by its name
    handler: Handler | None, kind: str, payload: Mapping[str, Any] | None, *, task_id: str | None = None,
    title: str | None = None, queue: str | None = None, priority: int = 0, delay_s: float = 0.0,
    max_attempts: int | None = None,
    budget: Budget | None = None, deadline_s: float | None = None, idempotency_key: str | None = None,
    version: int | None = None, tenant: str = "", concurrency_key: str | None = None,
    unique_for_s: float | None = None, unique_key: str | None = None, on_duplicate: OnDuplicate = "return",
) -> Submission:  # fmt: skip
    """What `App.submit` and `App.asubmit` write. Raises InvalidArguments, InvalidInput, InvalidValue, ValueTooLarge."""
    text = _payload(kind, handler, payload or {})
    limit_key = limit_key_of(handler, payload or {}, concurrency_key)
    task_id = task_id or new_task_id()
    queue = queue or (handler.queue if handler else "default")
    version = version_of(kind, handler.version if handler else None, version)
    call = tasks.submit(
        task_id, kind, title or kind, text, queue=queue, priority=priority, delay_s=delay_s,
        max_attempts=_attempts(handler, max_attempts), timeout_s=handler.timeout_s if handler else None,
        version=version, tenant=checked_key(tenant, "tenant"), limit_key=limit_key,
    )  # fmt: skip
    limited = budget or (handler.budget if handler else None)
    if limited is not None:
        call = with_budget(call, [task_id], limited.limits, limited.on_exceed)
    check_deadline(deadline_s)
    deadline = deadline_s or (handler.deadline_s if handler else None)
    if deadline is not None:
        call = tasks.with_deadline(call, [task_id], deadline)
    lane = (queue, kind, version, tenant, limit_key)
    if (unique_key is not None and unique_for_s is None) or (unique_for_s is not None and idempotency_key is not None):
        raise InvalidInput(
            "unique_key needs unique_for_s, and neither goes with idempotency_key", hint="choose one of the two"
        )
    if unique_for_s is not None:
        unique = unique_reservation(unique_key, task_id, kind, text, unique_for_s)
        return Submission([lane], [task_id], call, unique, on_duplicate)
    if idempotency_key is None:
        return Submission([lane], [task_id], call)
    return Submission([lane], [task_id], call, reservation(idempotency_key, task_id, kind, text))


def many_tasks(  # noqa: PLR0913  each by its name
    handler: Handler | None, kind: str, payloads: Iterable[Mapping[str, Any]], *, task_ids: Sequence[str] | None = None,
    title: str | None = None, queue: str | None = None, priority: int = 0, delay_s: float = 0.0,
    max_attempts: int | None = None, deadline_s: float | None = None, version: int | None = None,
    tenant: str = "", concurrency_key: str | None = None,
) -> Submission:  # fmt: skip
    """What `App.submit_many` and `App.asubmit_many` write. Raises as `one_task`."""
    check_deadline(deadline_s)
    payloads = list(payloads)
    ids = checked_ids(task_ids, len(payloads))
    queue = queue or (handler.queue if handler else "default")
    version = version_of(kind, handler.version if handler else None, version)
    keys = [limit_key_of(handler, payload, concurrency_key) for payload in payloads]
    texts = (_payload(kind, handler, payload) for payload in payloads)
    calls = calls_of(
        ids, texts, keys, tenant=checked_key(tenant, "tenant"),
        kind=kind, title=title or kind, queue=queue, priority=priority, delay_s=delay_s,
        max_attempts=_attempts(handler, max_attempts), timeout_s=handler.timeout_s if handler else None,
        budget=handler.budget if handler else None,
        deadline_s=deadline_s or (handler.deadline_s if handler else None), version=version,
    )  # fmt: skip
    lanes = [(queue, kind, version, tenant, key) for key in dict.fromkeys(keys or [""])]
    return Submission(lanes, ids, calls)


def _payload(kind: str, handler: Handler | None, payload: Mapping[str, Any]) -> str:
    body = dict(payload)
    if handler is not None:
        bind(kind, handler.function, body)
    else:
        check_payload(kind, body)
    return canonical_text(body, what="payload")


def _attempts(handler: Handler | None, asked: int | None) -> int:
    if asked is None:
        return handler.max_attempts if handler else 5
    if not 1 <= asked <= 1000:
        raise InvalidInput(f"max_attempts is {asked!r}", hint="it takes 1 to 1000")
    return asked
