"""What is written about the end of an attempt at an item, for runs outside the pool."""

from typing import Any
from uuid import UUID

from agentos.core.flows.patience import insist
from agentos.core.flows.results import message_of
from agentos.store.calls import items
from agentos.store.calls.items import Fence
from agentos.store.canonical import canonical_text
from agentos.store.errors import AgentOSError, InvalidInput, LeaseLost, NonRetryable, ReplayError, TaskCancelled
from agentos.store.run import Flow, do

TERMINAL = (InvalidInput, NonRetryable, ReplayError)
"""Errors that no retry can mend: the item fails at once."""


def complete(fence: Fence, result: str) -> Flow[None]:
    """Complete the item; `result` is JSON text. Raises LeaseLost: if it is somebody else's by now."""
    ours: tuple[int, UUID] = (fence.item_id, fence.token)
    not_now = yield from insist(items.complete(fence.worker_id, [(*ours, result)]))
    # Lost, or completed by a first try whose reply was lost: a new statement tells.
    if not_now and not (yield from do(items.ended_by([ours]))):
        raise LeaseLost(
            f"item {fence.item_id} was taken over before it could be completed",
            hint="nothing to do: whoever holds it resumes it from its last checkpoint",
        )


def fail(fence: Fence, exc: BaseException) -> Flow[str]:
    """Charge a failure, or end the item if no retry can mend it. Returns scheduled, failed or cancelled."""
    cancelled = isinstance(exc, TaskCancelled)
    return (
        yield from do(
            items.fail(
                fence, error_text(exc), terminal=cancelled or isinstance(exc, TERMINAL),
                status="cancelled" if cancelled else "failed",
            )
        )
    )  # fmt: skip


def release(fence: Fence) -> Flow[None]:
    """Give the item back; nothing is charged."""
    yield from do(items.release(fence.worker_id, [(fence.item_id, fence.token)]))


def error_text(exc: BaseException) -> str:
    """The error as the outcome records it."""
    kind = type(exc).__name__
    error: dict[str, Any] = {"type": kind, "message": message_of(exc).removeprefix(f"{kind}: ")}
    if isinstance(exc, AgentOSError) and exc.hint:
        error["fix"] = message_of(AgentOSError(exc.hint)).removeprefix("AgentOSError: ")
    return canonical_text(error, what="error")
