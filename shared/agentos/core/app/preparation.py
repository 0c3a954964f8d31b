"""From what is asked of an App to what is written: arguments checked, defaults of the handler filled in."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentos.core.app.arguments import check
from agentos.core.app.bulk import calls_of, checked_ids
from agentos.core.app.handler import Handler, check_deadline
from agentos.core.app.keyed import reservation, unique_reservation
from agentos.core.app.limits import checked_key, limit_key_of
from agentos.core.app.shape import Shape, attempts_of, shape_of
from agentos.core.app.submission import OnDuplicate, Submission
from agentos.core.budget import Budget
from agentos.core.payloads import check_payload
from agentos.core.task_id import new_task_id
from agentos.core.tracing.submitting import may_be_traced
from agentos.core.versions import version_of
from agentos.store.canonical import canonical_text
from agentos.store.codec import seal
from agentos.store.direct import Form
from agentos.store.errors import InvalidInput
from agentos.store.run import Call


@dataclass(slots=True)
class OneTask:
    """A task of one item that is to be made, for `App.submit` and `App.asubmit`."""

    shape: Shape
    task_id: str
    payload: str
    reserve: Call[str | None] | None = None
    on_duplicate: OnDuplicate = "return"

    @property
    def plain(self) -> Form | None:
        """What its submit is sent as, if it is a transaction of its own; None: there is more to it."""
        more = self.reserve is not None or type(self.task_id) is not str or may_be_traced()
        return None if more else self.shape.form

    @property
    def texts(self) -> tuple[str, str]:
        """What is filled in there. Raises CodecFailed; InvalidValue: if the payload pretends to be sealed."""
        return self.task_id, seal(self.payload)

    def submission(self) -> Submission:
        """What is written where there is more to it."""
        shape = self.shape
        lane = (shape.queue, shape.kind, shape.version, shape.tenant, shape.limit_key)
        call = shape.submit(self.task_id, self.payload)
        return Submission([lane], [self.task_id], call, self.reserve, self.on_duplicate)


def one_task(  # noqa: PLR0913  each by its name
    handler: Handler | None, kind: str, payload: Mapping[str, Any] | None, *, task_id: str | None = None,
    title: str | None = None, queue: str | None = None, priority: int = 0, delay_s: float = 0.0,
    max_attempts: int | None = None,
    budget: Budget | None = None, deadline_s: float | None = None, idempotency_key: str | None = None,
    version: int | None = None, tenant: str = "", concurrency_key: str | None = None,
    unique_for_s: float | None = None, unique_key: str | None = None, on_duplicate: OnDuplicate = "return",
) -> OneTask:  # fmt: skip
    """What `App.submit` and `App.asubmit` write. Raises InvalidArguments, InvalidInput, InvalidValue, ValueTooLarge."""
    text = _payload(kind, handler, payload or {})
    counted = concurrency_key is not None or (handler is not None and handler.limit_key is not None)
    limit_key = limit_key_of(handler, payload or {}, concurrency_key) if counted else ""
    shape = shape_of(
        handler, kind, title, queue, priority, delay_s, max_attempts, budget, deadline_s, version, tenant, limit_key
    )
    asked = OneTask(shape, task_id or new_task_id(), text)
    if (unique_key is not None and unique_for_s is None) or (unique_for_s is not None and idempotency_key is not None):
        raise InvalidInput(
            "unique_key needs unique_for_s, and neither goes with idempotency_key", hint="choose one of the two"
        )
    if unique_for_s is not None:
        asked.reserve = unique_reservation(unique_key, asked.task_id, kind, text, unique_for_s)
        asked.on_duplicate = on_duplicate
    elif idempotency_key is not None:
        asked.reserve = reservation(idempotency_key, asked.task_id, kind, text)
    return asked


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
        max_attempts=attempts_of(handler, max_attempts), timeout_s=handler.timeout_s if handler else None,
        budget=handler.budget if handler else None,
        deadline_s=deadline_s or (handler.deadline_s if handler else None), version=version,
    )  # fmt: skip
    lanes = [(queue, kind, version, tenant, key) for key in dict.fromkeys(keys or [""])]
    return Submission(lanes, ids, calls)


def _payload(kind: str, handler: Handler | None, payload: Mapping[str, Any]) -> str:
    body = payload if type(payload) is dict else dict(payload)
    if handler is not None:
        check(kind, handler.function, body)
    else:
        check_payload(kind, body)
    return canonical_text(body, what="payload")
