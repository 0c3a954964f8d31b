"""What submits with the same options have in common: checked, filled in and written for the wire once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from agentos.core.app.handler import Handler, check_deadline
from agentos.core.app.limits import checked_key
from agentos.core.budget import Budget
from agentos.core.versions import version_of
from agentos.store.calls import tasks
from agentos.store.calls.budgets import with_budget
from agentos.store.direct import Form, form_of
from agentos.store.errors import InvalidInput
from agentos.store.run import Call

KEPT = 1024
"""Shapes of the last submits; another one is made anew, which is what each submit cost before."""


@dataclass(frozen=True, slots=True)
class Shape:
    """`submit`: makes the call of a task id and a payload. `form`: the same as it is sent, and `many`: the same of an
    array of ids and a JSON array of payloads; None: it has more to say.
    """

    queue: str
    kind: str
    version: int | None
    tenant: str
    limit_key: str
    submit: Callable[[str, str], Call[int]]
    form: Form | None
    many: Form | None


def shape_of(*options: Any) -> Shape:
    """Handler, kind, title, queue, priority, delay_s, max_attempts, budget, deadline_s, version, tenant, limit_key.

    Raises InvalidInput, ConfigInvalid.
    """
    try:
        return _kept(*options)
    except TypeError:  # one of them cannot be a key; what is wrong with it is said by whoever takes it
        return _made(*options)


def _made(  # noqa: PLR0913, PLR0917  each is one of submit's, and keys of `_kept` have no names
    handler: Handler | None, kind: str, title: str | None, queue: str | None, priority: int, delay_s: float,
    max_attempts: int | None, budget: Budget | None, deadline_s: float | None, version: int | None, tenant: str,
    limit_key: str,
) -> Shape:  # fmt: skip
    queue = queue or (handler.queue if handler else "default")
    version = version_of(kind, handler.version if handler else None, version)
    how: dict[str, Any] = {
        "queue": queue, "priority": priority, "delay_s": delay_s, "max_attempts": attempts_of(handler, max_attempts),
        "timeout_s": handler.timeout_s if handler else None, "version": version,
        "tenant": checked_key(tenant, "tenant"), "limit_key": limit_key,
    }  # fmt: skip
    limited = budget or (handler.budget if handler else None)
    check_deadline(deadline_s)
    deadline = deadline_s or (handler.deadline_s if handler else None)

    def submit(task_id: str, payload: str) -> Call[int]:
        call = tasks.submit(task_id, kind, title or kind, payload, **how)
        if limited is not None:
            call = with_budget(call, [task_id], limited.limits, limited.on_exceed)
        return call if deadline is None else tasks.with_deadline(call, [task_id], deadline)

    form = many = None
    if limited is None and deadline is None:
        form = form_of(submit("", "{}"), tasks.SUBMIT_BLANKS, tasks.HAND_OVER)
        many = form_of(tasks.submit_array(kind, title or kind, **how), tasks.SUBMIT_BLANKS)
    return Shape(queue, kind, version, tenant, limit_key, submit, form, many)


_kept = lru_cache(KEPT, typed=True)(_made)


def attempts_of(handler: Handler | None, asked: int | None) -> int:
    """How often it may fail. Raises InvalidInput: if that is not 1 to 1000."""
    if asked is None:
        return handler.max_attempts if handler else 5
    if not 1 <= asked <= 1000:
        raise InvalidInput(f"max_attempts is {asked!r}", hint="it takes 1 to 1000")
    return asked
