"""The record of model outputs: one generator per key, whoever it is; the others wait or take."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import cache, items, workers
from agentos.store.calls.cache import CacheReply, PromptIdentity
from agentos.store.calls.items import Fence
from agentos.store.errors import UnknownTask
from agentos.store.run import Call

PROMPT = PromptIdentity("prompt-1", "task-1", "plan", "model", "0" * 64, "Plan: tea")


def begin(who: engine.Worker, fence: Fence | None = None) -> Call[CacheReply]:
    return cache.cache_begin(PROMPT, fence, who.worker_id, 60)


def finish(reply: CacheReply, who: engine.Worker, fence: Fence | None = None, *, output: str = '"tea"') -> Call[bool]:
    assert reply.call_token is not None
    return cache.cache_finish(
        PROMPT, reply.call_token, fence, who.worker_id, output, cache.Spent(10, 20, Decimal("0.5"))
    )


@pytest.fixture
def guest(runner: Driver) -> engine.Worker:
    """A living process without a lease; and the task."""
    engine.submit(runner)
    return engine.register(runner, role="guest", ttl_s=30)


@pytest.mark.parametrize("output", ["null", "false", '""', "[]", '{"n":12345678901234567890}'])
def test_an_output_is_generated_once_and_taken_after(runner: Driver, guest: engine.Worker, output: str) -> None:
    asked = runner.run(begin(guest))
    assert (asked.verdict, asked.generations) == ("generate", 1)
    assert runner.run(finish(asked, guest, output=output)) is True
    other = engine.register(runner, role="guest")
    taken = runner.run(begin(other))
    expected: Any = {"null": None, "false": False, '""': "", "[]": []}.get(output, {"n": 12345678901234567890})
    assert (taken.verdict, taken.output) == ("ready", expected)


def test_the_others_wait_while_somebody_alive_generates(
    runner: Driver, guest: engine.Worker, conn: psycopg.Connection[Any]
) -> None:
    runner.run(begin(guest))
    other = engine.register(runner, role="guest")
    worker = engine.register(runner)
    fence = worker.fence(worker.claim()[0])
    assert [runner.run(ask).verdict for ask in (begin(other), begin(worker, fence), begin(guest))] == ["busy"] * 3
    assert engine.count(conn, "llm_cache") == 1


@pytest.mark.parametrize("end", ["declared dead", "stopped", "expired"])
def test_a_generator_that_is_gone_is_taken_over_and_its_late_output_does_not_count(
    runner: Driver, guest: engine.Worker, clock: Any, end: str
) -> None:
    asked = runner.run(begin(guest))
    match end:
        case "declared dead":
            runner.run(workers.declare_dead([guest.worker_id]))
        case "stopped":
            runner.run(workers.retire_worker(guest.worker_id, "stopped"))
        case _:
            clock.advance(31)
    other = engine.register(runner, role="guest")
    taken_over = runner.run(begin(other))
    assert (taken_over.verdict, taken_over.generations) == ("generate", 2)
    assert runner.run(finish(asked, guest, output='"late"')) is False
    assert runner.run(finish(taken_over, other, output='"mine"')) is True
    assert runner.run(begin(other)).output == "mine"


def test_a_generator_that_lost_its_lease_is_taken_over_although_its_process_lives(runner: Driver) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    fence = worker.fence(worker.claim()[0])
    assert runner.run(begin(worker, fence)).verdict == "generate"
    guest = engine.register(runner, role="guest")
    assert runner.run(begin(guest)).verdict == "busy"
    runner.run(items.release(worker.worker_id, [(fence.item_id, fence.token)]))
    again = worker.fence(worker.claim()[0])
    assert runner.run(begin(worker, again)).verdict == "generate"


def test_an_error_is_not_kept_and_the_next_who_asks_generates(runner: Driver, guest: engine.Worker) -> None:
    asked = runner.run(begin(guest))
    assert asked.call_token is not None
    runner.run(cache.cache_abandon("prompt-1", engine.other_token()))
    assert runner.run(begin(guest)).verdict == "busy"
    runner.run(cache.cache_abandon("prompt-1", asked.call_token))
    other = engine.register(runner, role="guest")
    assert runner.run(begin(other)).verdict == "generate"
    runner.run(cache.cache_abandon("prompt-1", asked.call_token))
    assert runner.run(begin(guest)).verdict == "busy"


def test_an_abandoned_generation_that_others_wait_for_is_theirs(runner: Driver, guest: engine.Worker) -> None:
    asked = runner.run(begin(guest))
    assert asked.call_token is not None
    leaving, waiting = runner.session(), runner.session()
    leaving.begin()
    leaving.run(cache.cache_abandon("prompt-1", asked.call_token))
    other = engine.register(runner, role="guest")
    assert waiting.run(begin(other)).verdict == "busy"  # and waits for no lock
    leaving.commit()
    assert runner.run(cache.cache_busy("prompt-1", asked.call_token)) is False
    assert runner.run(begin(other)).verdict == "generate"


def test_an_output_expires_for_callers_without_a_lease_only(runner: Driver, guest: engine.Worker, clock: Any) -> None:
    runner.run(finish(runner.run(begin(guest)), guest))
    clock.advance(61)
    worker = engine.register(runner)
    fence = worker.fence(worker.claim()[0])
    assert runner.run(begin(worker, fence)).verdict == "ready"
    other = engine.register(runner, role="guest")
    again = runner.run(begin(other))
    assert (again.verdict, again.output, again.generations) == ("generate", None, 2)


def test_an_output_is_forgotten_on_request_and_a_generation_is_not(runner: Driver, guest: engine.Worker) -> None:
    assert runner.run(cache.cache_invalidate("prompt-1")) is False
    asked = runner.run(begin(guest))
    assert runner.run(cache.cache_invalidate("prompt-1")) is False
    runner.run(finish(asked, guest))
    assert runner.run(cache.cache_invalidate("prompt-1")) is True
    assert runner.run(begin(guest)).verdict == "generate"


def test_a_crowd_generates_once(runner: Driver, guest: engine.Worker) -> None:
    sessions = [runner.session() for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        verdicts = list(threads.map(lambda session: session.run(begin(guest)).verdict, sessions))
    assert sorted(verdicts) == ["busy"] * 7 + ["generate"]


def test_a_prompt_without_a_lease_needs_a_task(runner: Driver, guest: engine.Worker) -> None:
    unknown = PromptIdentity("prompt-2", "nowhere", "plan", "model", "0" * 64, "p")
    with pytest.raises(UnknownTask, match="nowhere"):
        runner.run(cache.cache_begin(unknown, None, guest.worker_id, 60))


def test_tokens_and_hits_are_counted_for_the_view(
    runner: Driver, guest: engine.Worker, conn: psycopg.Connection[Any]
) -> None:
    runner.run(finish(runner.run(begin(guest)), guest))
    runner.run(begin(guest))
    runner.run(begin(guest))
    counted = conn.execute(
        "SELECT hits, generations, prompt_tokens, completion_tokens FROM agentos.llm_cache"
    ).fetchone()
    assert counted == (2, 1, 10, 20)
    seen = conn.execute("SELECT key, source, task_id, name, state FROM agentos.idempotency_keys").fetchall()
    assert seen == [("prompt-1", "llm", "task-1", "plan", "ready")]
