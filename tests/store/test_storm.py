"""Everything at once, at random, from many connections: no deadlock, no item lost, doubled or left open."""

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from tests.drivers import Driver, Session
from tests.store import engine

from agentos.store.calls import checkpoints, items, ledger, tasks, timeline, waits, workers
from agentos.store.errors import (
    InvalidDependency,
    LeaseLost,
    NotRetryable,
    SeveralQuestions,
    TaskCancelled,
    TaskHeld,
    WorkerDead,
)
from agentos.testing.soundness import assert_sound

SECONDS = 4.0
TASKS = [f"task-{n}" for n in range(6)]
GRAPH: dict[str, list[str]] = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"], "e": []}
REFUSALS = (LeaseLost, TaskCancelled, TaskHeld, NotRetryable, SeveralQuestions, WorkerDead, InvalidDependency)
"""What somebody else's step may rightly cause. A deadlock is DatabaseBusy, and not among them."""


class Actor:
    """One connection that plays a worker, a person and a coordinator, a step at a time."""

    def __init__(self, session: Session, seed: int, *, repairs: bool) -> None:
        self.session = session
        self.random = random.Random(seed)
        self.repairs = repairs
        self.worker = engine.register(session, ttl_s=600)
        self.held: list[items.ClaimedItem] = []
        self.steps: list[Callable[[], Any]] = [
            self.claim, self.claim, self.complete, self.complete, self.fail, self.release, self.checkpoint,
            self.call_tool, self.grow, self.ask, self.die, self.cancel, self.retry, self.answer, self.sweep,
            self.script, self.give_up,
        ]  # fmt: skip

    def play(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                self.random.choice(self.steps)()
            except WorkerDead:
                self.reborn()
            except REFUSALS:
                continue

    def task(self) -> str:
        return self.random.choice(TASKS)

    def one(self) -> items.ClaimedItem | None:
        return self.held.pop(self.random.randrange(len(self.held))) if self.held else None

    def claim(self) -> None:
        lanes = [*self.worker.lanes, *(-lane for lane in self.worker.lanes)]
        self.held += self.session.run(items.claim(self.worker.worker_id, 0, lanes, self.random.randint(1, 4))).items

    def complete(self) -> None:
        done, self.held = self.held, []
        self.worker.complete(*done, on=self.session)

    def fail(self) -> None:
        if item := self.one():
            fence, terminal = self.worker.fence(item), self.random.random() < 0.3
            status = "cancelled" if item.cancelled else "failed"
            self.session.run(
                items.fail(fence, engine.ERROR, terminal=terminal or item.cancelled, delay_s=0, status=status)
            )

    def release(self) -> None:
        if item := self.one():
            self.session.run(items.release(self.worker.worker_id, [(item.item_id, item.token)]))

    def checkpoint(self) -> None:
        if self.held:
            item = self.random.choice(self.held)
            new = engine.checkpoint(item.task_id, item.item_id)
            self.session.run(checkpoints.commit_checkpoint(new, self.worker.fence(item)))

    def script(self) -> None:
        self.session.run(checkpoints.commit_checkpoint(engine.checkpoint(self.task()), None))

    def call_tool(self) -> None:
        if self.held:
            item = self.random.choice(self.held)
            call = engine.tool_call(f"{item.task_id}-call", item.task_id, item.item_id)
            fence, who = self.worker.fence(item), self.worker.worker_id
            reply = self.session.run(
                ledger.ledger_begin(call, fence, who, on_doubt="fail", produces="[]", expires_s=60)
            )
            if reply.verdict == "execute" and reply.call_token:
                self.session.run(
                    ledger.ledger_finish(call.key, reply.call_token, fence, who, result="1", exit_code=0, error=None)
                )

    def grow(self) -> None:
        if self.held:
            item = self.random.choice(self.held)
            needs = self.random.choice(list(GRAPH))
            key = f"more-{self.random.randint(1, 3)}"
            plan = f'[{{"key":"{key}","kind":"shell","depends_on":["{needs}"]}}]'
            self.session.run(items.expand(self.worker.fence(item), plan))

    def ask(self) -> None:
        if item := self.one():
            self.session.run(engine.ask(self.worker.fence(item), "sure?", "{}", item.task_id))

    def die(self) -> None:
        engine.crash(self.session, self.worker)
        self.reborn()

    def reborn(self) -> None:
        self.worker, self.held = engine.register(self.session, ttl_s=600), []

    def cancel(self) -> None:
        if self.random.random() < 0.3:
            self.session.run(tasks.cancel_task(self.task()))

    def retry(self) -> None:
        self.session.run(tasks.retry_task(self.task()))

    def answer(self) -> None:
        self.session.run(waits.answer(self.task(), approved=True, by="ana"))

    def give_up(self) -> None:
        if self.random.random() < 0.1:
            self.session.run(tasks.give_up(self.task(), self.worker.worker_id, "enough"))

    def sweep(self) -> None:
        self.session.run(workers.reclaim())
        self.session.run(workers.promote())
        if self.repairs:
            self.session.run(workers.repair())


def finish_all(runner: Driver, *, repairs: bool) -> None:
    """What a healthy pool does to whatever the storm left."""
    worker = engine.register(runner, ttl_s=600)
    for _ in range(200):
        runner.run(workers.reclaim())
        runner.run(workers.promote())
        if repairs:
            runner.run(workers.repair())
        for task in TASKS:
            for asked in runner.run(timeline.task_approvals(task)):
                if asked.open:
                    runner.run(waits.answer(task, approved=True, by="ana", question=asked.question_id))
        claimed = worker.claim(50) or worker.claim_solo(50)
        worker.complete(*claimed)
        if not claimed and all(runner.run(tasks.task_progress(task)).ended for task in TASKS):
            return
    still_open = {
        task: (engine.status(runner, task), engine.places(runner, task))
        for task in TASKS
        if not runner.run(tasks.task_progress(task)).ended
    }
    pytest.fail(f"still open: {still_open}")


@pytest.mark.parametrize("repairs", [False, True])  # without it, it cannot hide what a transition forgets
def test_a_storm_leaves_every_item_in_one_place_and_every_task_can_end(
    runner: Driver, database_dsn: str, conn: psycopg.Connection[Any], repairs: bool
) -> None:
    for task in TASKS[:4]:
        engine.create(runner, task, GRAPH)
    for task in TASKS[4:]:
        engine.submit(runner, task)
    actors = [Actor(runner.session(), n, repairs=repairs) for n in range(6)]
    with ThreadPoolExecutor(len(actors)) as threads:
        for playing in [threads.submit(actor.play, SECONDS) for actor in actors]:
            playing.result()
    for actor in actors:
        runner.run(workers.declare_dead([actor.worker.worker_id]))
    assert_sound(database_dsn)
    finish_all(runner, repairs=repairs)
    assert runner.run(tasks.misplaced_items()) == ()
    gaps = conn.execute(
        "SELECT task_id FROM agentos.checkpoints GROUP BY task_id HAVING max(sequence_number) <> count(*)"
    ).fetchall()
    assert gaps == []
