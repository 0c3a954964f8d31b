"""Spans of what a handler asks of its context: `with step(...)`. Who does not trace pays the look at a variable."""

from contextvars import ContextVar
from types import TracebackType
from typing import Any, Protocol, Self

from agentos.store.calls.items import ClaimedItem


class Step(Protocol):
    """One call, while it goes on."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def inside(self) -> "Step":
        """For a block within a call that comes and goes, such as a stream: makes it current, ends nothing."""

    def mark(self, **attributes: Any) -> None:
        """Say more about it. `replayed=True`: its answer was recorded, so it took no time."""


class Steps(Protocol):
    """Who makes them."""

    def step(self, name: str, attributes: dict[str, Any]) -> Step: ...
    def stream(self, name: str, attributes: dict[str, Any]) -> Step:
        """One that is not current where its block is: only in `inside`."""

    def carrier(self) -> dict[str, str]:
        """The current span as headers: traceparent, tracestate."""


class _Nothing:
    """Nobody traces."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def inside(self) -> Self:
        return self

    def mark(self, **_attributes: Any) -> None:
        return None


NOTHING = _Nothing()
steps_of_attempt: ContextVar[Steps | None] = ContextVar("agentos_steps", default=None)
"""Set for an attempt that is traced; follows its tasks and threads."""
current_step: ContextVar[Step | None] = ContextVar("agentos_step", default=None)


def step(name: str, **attributes: Any) -> Step:
    """A span under the attempt's, for a block. Keys of `attributes`: dots as two underscores (`gen_ai__tool__name`)."""
    steps = steps_of_attempt.get()
    return NOTHING if steps is None else steps.step(name, attributes)


def submit_step(item: ClaimedItem, count: int) -> Step:
    """A submit of `count` items to the task of `item`, by its handler. They are of its task, whose trace they have."""
    return step(
        "submit plan", task_id=item.task_id, messaging__system="agentos", messaging__operation__type="send",
        messaging__operation__name="send", messaging__message__id=item.task_id, messaging__batch__message_count=count,
    )  # fmt: skip


def stream_step(name: str, **attributes: Any) -> Step:
    """The same for an async generator, whose block goes on in its caller's context."""
    steps = steps_of_attempt.get()
    return NOTHING if steps is None else steps.stream(name, attributes)


def mark(**attributes: Any) -> None:
    """Say more about the call that goes on, if there is one."""
    if (this := current_step.get()) is not None:
        this.mark(**attributes)


def carrier() -> dict[str, str]:
    """Of the call or attempt that goes on; empty: nobody traces."""
    steps = steps_of_attempt.get()
    return {} if steps is None else steps.carrier()
