"""One attempt at one item, from its claim to what is written about its end."""

import asyncio
from collections.abc import Callable
from typing import Any

from agentos.core.kinds import Parked

from agentos.core.app.context import TaskContext
from agentos.core.lease import Lease, holding
from agentos.core.logs import bind_item, get_logger
from agentos.core.model import configured_completion
from agentos.core.scope import ItemScope
from agentos.core.tool import abash
from agentos.core.verification import verifier
from agentos.store.calls import items
from agentos.store.calls.items import Fence
from agentos.store.canonical import canonical_text
from agentos.store.connect import Database
from agentos.store.errors import (
    AgentOSError,
    DatabaseUnavailable,
    InvalidInput,
    LeaseLost,
    NonRetryable,
    ReplayError,
    TaskCancelled,
    ToolTimeout,
    WorkerDead,
)
from agentos.store.run import AsyncRunner, adrive
from agentos.worker.handlers import run_handler
from agentos.worker.options import Options
from agentos.worker.running import Attempt, Stop
from agentos.worker.vitals import Vitals

log = get_logger(__name__)

TRUST_POLL_S = 0.05
RESULT_LIMIT = 8 * 1024 * 1024
TERMINAL = (InvalidInput, NonRetryable, ReplayError)
"""Errors that no retry can mend: the item fails at once."""


class HandedBack(BaseException):
    """Raised in a handler after a checkpoint while the worker drains: the work is saved, another host goes on."""


class Execution:
    """Runs attempts for one worker process. `completed(attempt, result_text)` hands a success to the flusher."""

    def __init__(
        self, options: Options, db: AsyncRunner, sync_db: Database, vitals: Vitals,
        completed: Callable[[Attempt, str], None], left: Callable[[Attempt], None],
    ) -> None:  # fmt: skip
        self._options = options
        self._db = db
        self._sync_db = sync_db
        self._vitals = vitals
        self._completed = completed
        self._left = left
        self.draining = False

    async def run(self, attempt: Attempt) -> None:
        """Never raises: every way an attempt can end is written down, or the lease is lost and nothing is."""
        item = attempt.item
        fence = item.fence(attempt.worker_id)
        with bind_item(task_id=item.task_id, item_id=item.item_id, attempt=item.attempt, worker_id=attempt.worker_id):
            try:
                text = await self._result(attempt, fence)
            except (LeaseLost, WorkerDead):
                log.warning("lease lost; what the handler did since its last checkpoint is not kept")
                self._left(attempt)
            except Parked:
                log.info("parked: it waits for an answer")
                self._left(attempt)
            except BaseException as exc:
                await asyncio.shield(self._ended(attempt, fence, exc))
            else:
                self._completed(attempt, text)

    async def _result(self, attempt: Attempt, fence: Fence) -> str:
        item = attempt.item
        if item.cancelled:
            raise TaskCancelled("the task was cancelled before it ran")
        lease = Lease(fence, item.task_id, item.attempt)
        verify = verifier(self._sync_db, item.task_id, may_rerun=self._options.allow_shell)
        with holding(lease):
            scope = ItemScope(
                item, lease, verify_row=verify.row, verify=verify.evidence,
                tools={"bash": abash, **self._options.app.tools},
            )  # fmt: skip
            if item.attempt > 1:
                await adrive(self._db, scope.resume())
            model, complete = configured_completion(self._options.settings)
            context = TaskContext(scope, self._db, self, model, complete)
            result = await self._within_time(run_handler(self._options.app, scope, context, self._db), item.timeout_s)
        return await asyncio.to_thread(_as_text, result) if _is_large(result) else _as_text(result)

    async def _within_time(self, running: Any, timeout_s: float | None) -> Any:
        if timeout_s is None:
            return await running
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                return await running
        except TimeoutError as exc:
            if not limit.expired():
                raise
            raise ToolTimeout(f"the handler ran longer than its timeout_s of {timeout_s:g}") from exc

    # -- what a context asks (agentos.core.app.context.Guard) --

    async def before_effect(self) -> None:
        """Waits while no beat got through for two thirds of the TTL: the lease may be somebody else's by now."""
        while not self._vitals.trusted:  # noqa: ASYNC110  it is a beat's thread that makes it true again
            await asyncio.sleep(TRUST_POLL_S)

    def after_checkpoint(self) -> None:
        """While draining a checkpoint is where a handler stops."""
        if self.draining:
            raise HandedBack

    # -- how an attempt ends --

    async def _ended(self, attempt: Attempt, fence: Fence, exc: BaseException) -> None:
        try:
            await self._write_end(attempt, fence, exc)
        except (LeaseLost, WorkerDead):
            log.warning("lease lost; its end is not written")
        except DatabaseUnavailable as outage:
            log.warning("its end could not be written; the lease runs out", error=outage.message)
        self._left(attempt)

    async def _write_end(self, attempt: Attempt, fence: Fence, exc: BaseException) -> None:
        if attempt.stop is Stop.LOST:
            log.warning("stopped: the lease is lost")
        elif isinstance(exc, TaskCancelled) or attempt.stop is Stop.CANCELLED:
            log.info("cancelled")
            await self._db.run(items.fail(fence, _error(TaskCancelled("cancelled")), terminal=True, status="cancelled"))
        elif isinstance(exc, HandedBack) or attempt.stop is Stop.DRAIN:
            log.info("handed back")
            await self._db.run(items.release(fence.worker_id, [(fence.item_id, fence.token)]))
        elif isinstance(exc, DatabaseUnavailable):
            log.warning("the database went away under the handler; handed back", error=exc.message)
            await self._db.run(items.release(fence.worker_id, [(fence.item_id, fence.token)]))
        else:
            became = await self._db.run(items.fail(fence, _error(exc), terminal=isinstance(exc, TERMINAL)))
            log.warning("attempt failed", error=_message(exc), error_type=type(exc).__name__, item_became=became)


def _is_large(result: Any) -> bool:
    return isinstance(result, str | list | dict) and len(result) > 10_000


def _as_text(result: Any) -> str:
    return canonical_text(result, limit=RESULT_LIMIT, what="result of the handler")


def _message(exc: BaseException) -> str:
    return (str(exc) or type(exc).__name__)[:2000]


def _error(exc: BaseException) -> str:
    error: dict[str, Any] = {"type": type(exc).__name__, "message": _storable(_message(exc))}
    if isinstance(exc, AgentOSError) and exc.hint:
        error["fix"] = _storable(exc.hint)
    return canonical_text(error, what="error")


def _storable(text: str) -> str:
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
