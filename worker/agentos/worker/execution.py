"""One attempt at one item, from its claim to what is written about its end."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from agentos.core.app import Handler
from agentos.core.app.context import TaskContext
from agentos.core.app.retry import Decision, decide
from agentos.core.lease import Lease, current_lease
from agentos.core.logs import bind_item, get_logger
from agentos.core.model import configured_completion
from agentos.core.parked import Parked
from agentos.core.process import monotonic
from agentos.core.scope import ItemScope
from agentos.core.telling import Telling
from agentos.core.tool import abash
from agentos.core.verification import verifier
from agentos.store.calls import items
from agentos.store.calls.items import Fence
from agentos.store.canonical import canonical_text
from agentos.store.connect import Database
from agentos.store.counts import counts
from agentos.store.errors import (
    AgentOSError,
    ContentSealed,
    DatabaseUnavailable,
    EngineReplaced,
    InvalidValue,
    IsolatedHandlerDied,
    LeaseLost,
    SchemaMissing,
    TaskCancelled,
    ToolTimeout,
    ValueTooLarge,
)
from agentos.store.run import AsyncRunner, adrive
from agentos.worker.handlers import leave_alone, run_handler
from agentos.worker.isolated.process import ENDING_S, HandlerProcess
from agentos.worker.options import Options
from agentos.worker.outage import TROUBLE, reason
from agentos.worker.running import Attempt, Stop
from agentos.worker.tracing import begin_span
from agentos.worker.vitals import Vitals

log = get_logger(__name__)

TRUST_POLL_S = 0.05
RESULT_LIMIT = 8 * 1024 * 1024
SMALL_RESULT = 64 * 1024
"""Bytes of JSON that are written on the event loop; more is written in a thread."""
WRITE_AGAIN_S = 0.2
SEALED_AGAIN_S = 60.0
"""An item whose content this process cannot open: a worker that can is perhaps being deployed."""
WRITE_TRIES = 150
AWAY_S = 0.5
"""An item that ends with "the database is away" is given back uncharged, after this pause: it may be said for ever."""


UNREADABLE = (InvalidValue, ContentSealed)
"""What stands in place of a payload."""


class HandedBack(BaseException):
    """Raised in a handler after a checkpoint while the worker drains: the work is saved, another host goes on."""


class Execution:
    """Runs attempts for one worker process. `completed(attempt, result_text)` hands a success to the flusher, `left` is
    told when an attempt needs nothing more, `given_back` of which queue work is there for others.
    """

    def __init__(
        self, options: Options, db: AsyncRunner, sync_db: Database, vitals: Vitals, *,
        completed: Callable[[Attempt, str], None], left: Callable[[Attempt], None], given_back: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._options = options
        self._db = db
        self._sync_db = sync_db
        self._vitals = vitals
        self._completed = completed
        self._left = left
        self._given_back = given_back
        self._telling = Telling(db, asyncio.get_running_loop())
        self._tools = {"bash": abash, **options.app.tools}
        self._model: tuple[str, Callable[[Any], Any]] | None = None
        self.draining = False

    async def run(self, attempt: Attempt) -> None:
        """Never raises: every way an attempt can end is written down, or the lease is lost and nothing is."""
        attempt.began = monotonic()
        try:
            text = await self._result(attempt)
        except BaseException as exc:
            current_lease.set(None)
            if not attempt.abandoned:
                attempt.running = False
                await self._unfinished(attempt, exc)
        else:
            if not attempt.abandoned:
                _count(attempt, "completed")
                self._completed(attempt, text)

    async def _result(self, attempt: Attempt) -> str:
        item = attempt.item
        if "opentelemetry.trace" in sys.modules:
            attempt.span = await begin_span(self._db, attempt)
        if attempt.stop is not None:
            raise asyncio.CancelledError
        if item.cancelled:
            raise TaskCancelled("the task was cancelled before it ran")
        if isinstance(item.payload, UNREADABLE):
            raise item.payload
        lease = Lease.of(item, attempt.worker_id)
        if (attempt.take_pause() or item.paused) and await self._db.run(items.park_paused(lease.fence)):
            raise Parked
        handler = self.handler(item.kind)
        own_grace_s = handler.cancel_grace_s if handler else None
        grace_s = self._options.settings.cancel_grace_s if own_grace_s is None else own_grace_s
        isolated = handler is not None and handler.isolation == "process"
        attempt.grace_s = grace_s + (ENDING_S if isolated else 0)
        current_lease.set(lease)  # in a context of its own, as every task has
        attempt.running, attempt.unwilling = True, self._abandon
        timer = item.timeout_s and asyncio.get_running_loop().call_later(item.timeout_s, attempt.time_out)
        process = None
        if isolated:
            process = HandlerProcess(self._options.app_reference, lambda: attempt.timed_out, grace_s)
        try:
            result = await self._handled(attempt, lease, handler, process)
        finally:
            attempt.running = False
            if timer:
                timer.cancel()
        current_lease.set(None)
        return "null" if result is None else await _text(result)

    async def _handled(
        self, attempt: Attempt, lease: Lease, handler: Handler | None, process: HandlerProcess | None
    ) -> Any:
        item = attempt.item
        verify = verifier(self._sync_db, item.task_id, may_rerun=self._options.allow_shell)
        scope = ItemScope(
            item, lease, verify_row=verify.row, verify=verify.evidence, tools=self._tools,
            before_effect=self.before_effect, on_change=handler.on_change if handler else "ask",
        )  # fmt: skip
        if item.attempt > 1:
            await adrive(self._db, scope.resume())
            if attempt.span is not None:
                attempt.span.mark(resumed_from=scope.resumed_from)
        if self._model is None:
            self._model = configured_completion(self._options.settings)
        model, complete = self._model
        context = TaskContext(scope, self._db, self, model, complete, self._telling)
        context.take_pause = attempt.take_pause
        context.leave = attempt.end_later
        context.enter(attempt.task)
        attempt.entered = True
        try:
            return await run_handler(handler, scope, context, self._db, process)
        finally:
            if self._telling.waits:
                await self._telling.flush_of(lease.fence)
            if context.left:  # whatever a handler made of it: a group, another error, a result
                raise Parked

    def _abandon(self, attempt: Attempt) -> None:
        """Its handler was told to end and has not: its end is written without it."""
        if attempt.running and attempt.task is not None:
            attempt.running, attempt.abandoned = False, True
            leave_alone(attempt.task, attempt.grace_s)
            attempt.task = asyncio.create_task(self._unfinished(attempt, asyncio.CancelledError()))

    # -- what a running item asks --

    async def before_effect(self) -> None:
        """Waits while no beat got through for two thirds of the TTL: the lease may be somebody else's by now."""
        while not self._vitals.trusted:  # noqa: ASYNC110  it is a beat's thread that makes it true again
            await asyncio.sleep(TRUST_POLL_S)

    def after_checkpoint(self) -> None:
        """While draining a checkpoint is where a handler stops."""
        if self.draining:
            raise HandedBack

    def handler(self, kind: str) -> Handler | None:
        """What the app has registered for a kind: how a child task of it runs."""
        return self._options.app.handlers.get(kind)

    # -- how an attempt ends --

    async def _unfinished(self, attempt: Attempt, exc: BaseException) -> None:
        item = attempt.item
        with bind_item(
            task_id=item.task_id, item_id=item.item_id, attempt=item.attempt, worker_id=attempt.worker_id,
            queue=item.queue, kind=item.kind,
        ):  # fmt: skip
            if isinstance(exc, Parked) or attempt.stop is Stop.PARKED:
                log.info("parked: it waits as a row")
                _count(attempt, "parked")
                self._left(attempt)
                return
            if attempt.timed_out and attempt.stop is None:
                exc = (
                    exc
                    if isinstance(exc, IsolatedHandlerDied)
                    else ToolTimeout(f"the handler ran longer than its timeout_s of {item.timeout_s:g}")
                )
            away = isinstance(exc, DatabaseUnavailable) and not (attempt.entered and self._vitals.beating)
            # A migration of another version under a running handler is no fault of its own, also if a function went,
            # nor is that the database did not answer before it began.
            attempt.in_outage = away or isinstance(exc, EngineReplaced | SchemaMissing)
            await asyncio.shield(self._ended(attempt, item.fence(attempt.worker_id), exc))

    async def _ended(self, attempt: Attempt, fence: Fence, exc: BaseException) -> None:
        try:
            for _ in range(WRITE_TRIES):
                if await self._is_written(attempt, fence, exc):
                    return
                await asyncio.sleep(WRITE_AGAIN_S)
        finally:
            self._left(attempt)

    async def _is_written(self, attempt: Attempt, fence: Fence, exc: BaseException) -> bool:
        try:
            _count(attempt, await self._write_end(attempt, fence, exc), exc)
        except LeaseLost as lost:
            _count(attempt, "lost", lost)
            log.warning("lease lost; what the handler did since its last checkpoint is not kept", error=reason(exc))
        except TROUBLE as trouble:
            log.warning("its end could not be written; trying again", error=reason(trouble))
            return False
        return True

    async def _write_end(self, attempt: Attempt, fence: Fence, exc: BaseException) -> str:
        """Returns the attempt's outcome."""
        if attempt.stop is Stop.LOST:
            log.warning("stopped: the lease is lost")
            return "lost"
        if isinstance(exc, TaskCancelled) or attempt.stop is Stop.CANCELLED:
            log.info("cancelled")
            await self._db.run(items.fail(fence, _error(TaskCancelled("cancelled")), terminal=True, status="cancelled"))
            return "cancelled"
        if isinstance(exc, HandedBack) or attempt.stop is Stop.DRAIN:
            log.info("handed back")
            return await self._give_back(attempt, fence)
        if attempt.in_outage:
            log.warning("the database was away or replaced under the handler; handed back", error=reason(exc))
            await asyncio.sleep(AWAY_S)
            return await self._give_back(attempt, fence)
        if isinstance(exc, ContentSealed):
            log.error("its content cannot be opened here; put off", error=reason(exc), in_s=SEALED_AGAIN_S)
            await self._db.run(items.put_off(fence, SEALED_AGAIN_S, _error(exc)))
            return "put_off"
        handler = self.handler(attempt.item.kind)
        decision = decide(handler.retry if handler else None, exc, attempt.item.failures)
        error = _error(exc, decision)
        became = await self._db.run(items.fail(fence, error, terminal=decision.terminal, delay_s=decision.delay_s))
        log.warning("attempt failed", error=_message(exc), error_type=type(exc).__name__, item_became=became)
        return "retried" if became == "scheduled" else became

    async def _give_back(self, attempt: Attempt, fence: Fence) -> str:
        await self._db.run(items.release(fence.worker_id, [(fence.item_id, fence.token)]))
        self._given_back(attempt.item.queue)
        return "released"


def _count(attempt: Attempt, outcome: str, exc: BaseException | None = None) -> None:
    if attempt.span is not None:
        attempt.span.end(outcome, exc)
    counts.attempts.observe(monotonic() - attempt.began, attempt.item.kind, outcome)


async def _text(result: Any) -> str:
    """JSON of what a handler returned; what is not small is written in a thread, beside the other handlers."""
    try:
        return _as_text(result, SMALL_RESULT)
    except ValueTooLarge:
        return await asyncio.to_thread(_as_text, result, RESULT_LIMIT)


def _as_text(result: Any, limit: int) -> str:
    return canonical_text(result, limit=limit, what="result of the handler")


def _message(exc: BaseException) -> str:
    try:
        return (str(exc) or type(exc).__name__)[:2000]
    except Exception as broken:  # its __str__ is the user's code
        return f"{type(exc).__name__}, whose text cannot be had: {type(broken).__name__}"


def _error(exc: BaseException, decision: Decision | None = None) -> str:
    error: dict[str, Any] = {"type": type(exc).__name__, "message": _storable(_message(exc))}
    if isinstance(exc, AgentOSError) and exc.hint:
        error["fix"] = _storable(exc.hint)
    if decision is not None and decision.why:
        error["why"] = _storable(decision.why)
    return canonical_text(error, what="error")


def _storable(text: str) -> str:
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
