"""`@app.cron`: handlers that are submitted by the calendar."""

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from agentos.core.app.arguments import bind
from agentos.core.app.handler import Handler
from agentos.core.calendar import Schedule, schedule
from agentos.store.calls import cron
from agentos.store.canonical import canonical_text
from agentos.store.errors import ConfigInvalid
from agentos.store.run import Flow, do

if TYPE_CHECKING:
    from agentos.core.app.registry import App

F = TypeVar("F", bound=Callable[..., Any])
Misfire = Literal["skip", "once", "all"]
MISFIRE_MAX = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class CronEntry:
    """What is declared: when, and which task."""

    name: str
    schedule: Schedule
    misfire: Misfire
    misfire_max: int
    handler: Handler
    payload: str
    tells_time: bool
    priority: int

    def row(self, now: datetime) -> dict[str, Any]:
        """As `declare_cron` takes it; its next time counted from `now`."""
        handler, budget = self.handler, self.handler.budget
        limits = (
            {name: str(value) for name, value in asdict(budget.limits).items() if value is not None} if budget else None
        )
        return {
            "name": self.name, "expression": self.schedule.expression, "timezone": self.schedule.zone.key,
            "misfire": self.misfire, "misfire_max": self.misfire_max, "kind": handler.kind, "queue": handler.queue,
            "version": handler.version, "payload": json.loads(self.payload), "tells_time": self.tells_time,
            "priority": self.priority, "max_attempts": handler.max_attempts, "timeout_s": handler.timeout_s,
            "deadline_s": handler.deadline_s,
            "budget": {**limits, "on_exceed": budget.on_exceed} if budget and limits is not None else None,
            "next_at": self.schedule.after(now).isoformat(),
        }  # fmt: skip


def cron_decorator(
    app: "App", expression: str, *, timezone: str, name: str | None, misfire: Misfire, misfire_max: int,
    payload: Mapping[str, Any] | None, priority: int,
) -> Callable[[F], F]:  # fmt: skip
    """What `App.cron` returns."""
    when = schedule(expression, timezone)

    def register(function: F) -> F:
        handler = _handler_of(app.handlers, function)
        named = name or (handler.kind if handler else function.__name__)
        _check(named, misfire, misfire_max)
        if named in app.cron_entries:
            raise ConfigInvalid(f"there is a cron entry {named!r} already", hint="give this one a name= of its own")
        if handler is None:
            app.task(function.__name__)(function)
            handler = app.handlers[function.__name__]
        app.cron_entries[named] = _entry(named, when, misfire, misfire_max, handler, payload or {}, priority)
        return function

    return register


def _check(name: str, misfire: Misfire, misfire_max: int) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigInvalid(f"{name!r} cannot be the name of a cron entry", hint="letters, digits, and . _ - within")
    if misfire not in get_args(Misfire) or not 1 <= misfire_max <= 10_000:
        raise ConfigInvalid(
            f"cron entry {name!r}: misfire is {misfire!r}, misfire_max is {misfire_max!r}",
            hint="misfire is skip, once or all; misfire_max is from 1 to 10000",
        )


def _entry(
    name: str, when: Schedule, misfire: Misfire, misfire_max: int, handler: Handler, payload: Mapping[str, Any],
    priority: int,
) -> CronEntry:  # fmt: skip
    parameters = inspect.signature(handler.function).parameters
    tells_time = "scheduled_at" in parameters and "scheduled_at" not in payload
    body = dict(payload)
    bind(handler.kind, handler.function, {**body, "scheduled_at": "2026-01-01T00:00:00Z"} if tells_time else body)
    return CronEntry(
        name, when, misfire, misfire_max, handler, canonical_text(body, what="payload"), tells_time, priority
    )


def declare(entries: Sequence[CronEntry]) -> Flow[int]:
    """Tell the database. Returns how many entries it took; one of a newer handler version stays as it is."""
    if not entries:
        return 0
    now = yield from do(cron.database_clock())
    return (yield from do(cron.declare_cron(json.dumps([entry.row(now) for entry in entries]))))


def _handler_of(handlers: Mapping[str, Handler], function: Callable[..., Any]) -> Handler | None:
    return next((each for each in handlers.values() if each.function is function), None)
