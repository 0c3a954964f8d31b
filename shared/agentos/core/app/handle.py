"""A handle on a submitted task: its id, its status, its result."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from agentos.core.app.operations import Operations
from agentos.core.budget import Budget
from agentos.core.flows.patience import insist
from agentos.core.llm.kept import ModelCall, recorded_calls
from agentos.core.process import monotonic
from agentos.core.wake import waker_of
from agentos.store.calls import budgets, coordinator, tasks, timeline, waits, workers
from agentos.store.calls.budgets import BudgetLine, Limits
from agentos.store.calls.checkpoints import require_item
from agentos.store.calls.stream import BEGINNING, StreamEvent, stream
from agentos.store.calls.tasks import TaskProgress
from agentos.store.calls.timeline import Approval, CheckedEvidence
from agentos.store.canonical import canonical_text
from agentos.store.connect import Database
from agentos.store.errors import InvalidInput, TaskCancelled, TaskFailed, TaskPurged, TaskTimeout
from agentos.store.run import Flow, Sleep, SyncRunner, do, drive

FIRST_POLL_S = 0.01
LAST_POLL_S = 0.5
FOLLOW_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class TaskHandle(Operations):
    """A task, wherever it was submitted. Keep the `task_id` to find the task again: `app.handle(task_id)`.

    `created` False: the submit was said before, under the same idempotency key, and this is the task of then.
    """

    task_id: str
    db: Database
    created: bool = True

    def status(self) -> str:
        """created, running, paused, waiting, completed, failed or cancelled. Raises UnknownTask."""
        return self.db.run(tasks.task_progress(self.task_id)).status

    async def astatus(self) -> str:
        """The same, awaited."""
        return await asyncio.to_thread(self.status)

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the result: of a task of many items an object {item key: result}.

        `timeout`: seconds, default for ever. Raises TaskFailed, TaskCancelled: if it ended so. TaskPurged: if its
        content was taken away. TaskTimeout: if it has not ended by then; it goes on.
        """
        progress = drive(self.db, wait(self.task_id, timeout))
        return progress.result if progress.single else self._results()

    async def aresult(self, timeout: float | None = None) -> Any:
        """The same, awaited."""
        return await asyncio.to_thread(self.result, timeout)

    def events(self, after: str = BEGINNING) -> Iterator[StreamEvent]:
        """The task's events in order, as they come, until it has ended: attempts, progress, log lines, tokens.

        `after`: the `cursor` of the last event that was seen; whoever reads again from there misses nothing.
        """
        return follow(self.db, self.task_id, after)

    async def aevents(self, after: str = BEGINNING) -> AsyncIterator[StreamEvent]:
        """The same, awaited."""
        events = self.events(after)
        while (event := await asyncio.to_thread(next, events, None)) is not None:
            yield event

    def cancel(self, reason: str = tasks.CANCELLED) -> str:
        """Ask for its end; the task and its events say the `reason`. Returns the status: `running` until what runs has
        been told. Raises UnknownTask.
        """
        return self.db.run(tasks.cancel_task(self.task_id, reason))

    async def acancel(self, reason: str = tasks.CANCELLED) -> str:
        """The same, awaited."""
        return await asyncio.to_thread(self.cancel, reason)

    def retry(self) -> int:
        """Open the items of a failed or cancelled task again; what is recorded is kept, and they go on from their last
        checkpoint that holds. Returns how many. Raises NotRetryable, UnknownTask.
        """
        return drive(self.db, retry(self.task_id))

    async def aretry(self) -> int:
        """The same, awaited."""
        return await asyncio.to_thread(self.retry)

    def pause(self) -> str:
        """Let nothing of it begin, nor of its children, until `resume`. What runs is parked at its next recorded call
        or after its next checkpoint. Returns the status: `running` until then. One that has ended stays as it is.
        """
        return self.db.run(tasks.pause_task(self.task_id))

    async def apause(self) -> str:
        """The same, awaited."""
        return await asyncio.to_thread(self.pause)

    def resume(self) -> None:
        """End the pause, of its children too: what was parked for it is ready again."""
        drive(self.db, resume(self.task_id))

    async def aresume(self) -> None:
        """The same, awaited."""
        await asyncio.to_thread(self.resume)

    def signal(self, name: str, payload: Any = None) -> None:
        """Send a signal: the oldest `ctx.wait_for(name)` of the task gets it, or the next one. Blocks for one commit.

        Raises InvalidValue, ValueTooLarge: if JSON cannot hold the payload. UnknownTask; TaskFinished: if it has ended.
        """
        drive(self.db, signal(self.task_id, name, payload))

    async def asignal(self, name: str, payload: Any = None) -> None:
        """The same, awaited."""
        await asyncio.to_thread(self.signal, name, payload)

    def questions(self) -> tuple[Approval, ...]:
        """What the task asks people now: each with its `question_id`, what is shown and its hash, and the options."""
        return tuple(each for each in self.db.run(timeline.task_approvals(self.task_id)) if each.open)

    async def aquestions(self) -> tuple[Approval, ...]:
        """The same, awaited."""
        return await asyncio.to_thread(self.questions)

    def answer(
        self, approved: bool = True, *, by: str, option: str | None = None, question_id: str | None = None,
        shown_sha256: str | None = None,
    ) -> None:  # fmt: skip
        """Answer a question of the task; it goes on. `question_id`: needed when several are open. `shown_sha256`: of
        what was looked at; an answer to other content is refused.

        Raises NotRetryable: if nothing waits for this answer. SeveralQuestions, StaleAnswer, UnknownOption.
        """
        drive(self.db, answer(self.task_id, approved, by, option, question_id, shown_sha256))

    async def aanswer(
        self, approved: bool = True, *, by: str, option: str | None = None, question_id: str | None = None,
        shown_sha256: str | None = None,
    ) -> None:  # fmt: skip
        """The same, awaited."""
        await asyncio.to_thread(
            self.answer, approved, by=by, option=option, question_id=question_id, shown_sha256=shown_sha256
        )

    def budget(self) -> tuple[BudgetLine, ...]:
        """The limits of the task's budget, with what is spent and what calls in flight may come to; none: no budget."""
        return self.db.run(budgets.budget_of(self.task_id))

    async def abudget(self) -> tuple[BudgetLine, ...]:
        """The same, awaited."""
        return await asyncio.to_thread(self.budget)

    def raise_budget(self, add: Budget) -> int:
        """Add to limits that the task has: `Budget(max_calls=5)` allows five calls more. What was parked for want of
        them goes on, in child tasks too. Returns how many items. Raises NotRetryable: if it has no budget. UnknownTask.
        """
        return len(drive(self.db, raise_budget(self.task_id, add.limits)))

    async def araise_budget(self, add: Budget) -> int:
        """The same, awaited."""
        return await asyncio.to_thread(self.raise_budget, add)

    def verdicts(self, limit: int = 1000) -> tuple[CheckedEvidence, ...]:
        """The newest `limit` checks of the task's evidence and what each found, oldest first. Raises UnknownTask."""
        self.db.run(require_item(self.task_id, None))
        return self.db.run(timeline.task_verdicts(self.task_id, limit))

    async def averdicts(self, limit: int = 1000) -> tuple[CheckedEvidence, ...]:
        """The same, awaited."""
        return await asyncio.to_thread(self.verdicts, limit)

    def model_calls(self, limit: int = 1000) -> tuple[ModelCall, ...]:
        """The newest `limit` model calls with what was asked and answered, oldest first. Raises UnknownTask."""
        self.db.run(require_item(self.task_id, None))
        return drive(self.db, recorded_calls(self.task_id, limit))

    async def amodel_calls(self, limit: int = 1000) -> tuple[ModelCall, ...]:
        """The same, awaited."""
        return await asyncio.to_thread(self.model_calls, limit)

    def _results(self) -> dict[str, Any]:
        rows = self.db.run(tasks.task_items(self.task_id))
        return {row.key or str(row.seq): row.result for row in rows}


@dataclass(frozen=True, slots=True)
class SubmittedTask(TaskHandle):
    """What `submit` returns."""

    queue: str = "default"

    def wake(self) -> None:
        """Tell the workers that it is there, soon: after the commit of the transaction that `conn` was given for.

        Returns at once. A word that is lost costs a poll, 1 s at most.
        """
        waker_of(self.db).wake(self.queue)


@dataclass(frozen=True, slots=True)
class AsyncSubmittedTask(TaskHandle):
    """What `asubmit` returns: `await handle.wake()`, `await handle.aresult()`."""

    queue: str = "default"

    async def wake(self) -> None:
        """As `SubmittedTask.wake`."""
        waker_of(self.db).wake(self.queue)


def follow(db: SyncRunner, task_id: str, after: str = BEGINNING) -> Iterator[StreamEvent]:
    """The events of a task as they come, until it has ended. Raises UnknownTask."""
    cursor, pause = after, FIRST_POLL_S
    while True:
        ended = db.run(tasks.task_progress(task_id)).ended  # asked first: what it wrote last is there then
        events = db.run(stream(task_id, cursor))
        yield from events
        if events:
            cursor, pause = events[-1].cursor, FIRST_POLL_S
        elif ended:
            return
        else:
            time.sleep(pause)
            pause = min(pause * 1.5, FOLLOW_POLL_S)


def resume(task_id: str) -> Flow[tuple[int, ...]]:
    """End a task's pause and wake whoever serves it. Returns the items that are ready again."""
    woken = yield from do(tasks.resume_task(task_id))
    yield from wake(woken)
    return woken


def retry(task_id: str) -> Flow[int]:
    """Open a task's items again and wake whoever serves them. Returns how many."""
    reopened = yield from do(tasks.retry_task(task_id))
    yield from wake([item.item_id for item in (yield from do(tasks.task_items(task_id)))])
    return reopened


def raise_budget(task_id: str, add: Limits) -> Flow[tuple[int, ...]]:
    """Raise a task's limits and wake whoever serves what goes on. Returns those items."""
    woken = yield from do(budgets.raise_budget(task_id, add))
    yield from wake(woken)
    return woken


def signal(task_id: str, name: str, payload: Any) -> Flow[tuple[int, ...]]:
    """Send a signal and wake whoever serves what it woke; said again after an outage it is there once. Returns the
    items woken.
    """
    text = canonical_text(payload, what=f"the payload of signal {name}")
    woken = yield from insist(waits.send_signal(task_id, _name(name), text, uuid4()))
    yield from wake(woken)
    return woken


def answer(
    task_id: str, approved: bool, by: str, option: str | None, question_id: str | None, shown_sha256: str | None
) -> Flow[str]:
    """Answer a question and wake whoever serves the item. Returns the question's id."""
    answered = yield from do(
        waits.answer(task_id, approved, by, question=question_id, option=option, shown_sha256=shown_sha256)
    )
    asked = yield from do(timeline.task_approvals(task_id))
    yield from wake([each.item_id for each in asked if each.question_id == answered])
    return answered


def wake(item_ids: Sequence[int]) -> Flow[None]:
    """Tell the workers of these items' queues: a statement of its own, after the commit."""
    if item_ids:
        queues = yield from do(coordinator.queues_of(item_ids))
        yield from do(workers.wake(queues))


def _name(name: str) -> str:
    if not 1 <= len(name) <= 255:
        raise InvalidInput(f"the signal's name is {name!r:.80}", hint="name it with 1 to 255 characters")
    return name


def wait(task_id: str, timeout: float | None) -> Flow[TaskProgress]:
    """Poll, ever slower, until the task has ended. Raises TaskFailed, TaskCancelled, TaskPurged, TaskTimeout.
    UnknownTask.
    """
    deadline = None if timeout is None else monotonic() + timeout
    pause = FIRST_POLL_S
    while True:
        progress = yield from do(tasks.task_progress(task_id))
        if progress.ended:
            return _completed(task_id, progress)
        left = LAST_POLL_S if deadline is None else deadline - monotonic()
        if left <= 0:
            raise TaskTimeout(
                f"task {task_id} is {progress.status} after {timeout:g} s",
                hint=f"it goes on; wait again, or look: agentos show {task_id}",
            )
        yield Sleep(min(pause, left))
        pause = min(pause * 1.5, LAST_POLL_S)


def _completed(task_id: str, progress: TaskProgress) -> TaskProgress:
    if progress.purged_at is not None:
        raise TaskPurged(
            f"the content of task {task_id} was purged at {progress.purged_at:%Y-%m-%d %H:%M:%S}; it had ended as"
            f" {progress.status}",
            hint=f"what is left of it: agentos show {task_id}",
        )
    if progress.status == "failed":
        raise TaskFailed(
            f"task {task_id} failed: {progress.reason}", hint=f"agentos show {task_id}, then agentos retry {task_id}"
        )
    if progress.status == "cancelled":
        raise TaskCancelled(f"task {task_id} was cancelled: {progress.reason or 'by request'}")
    return progress
