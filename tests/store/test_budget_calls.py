"""Budgets: asked before a call is made, with what calls in flight may come to; nothing is ever spent twice."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import budgets, cache, items, rewind, tasks, workers
from agentos.store.calls.budgets import Limits, OnExceed
from agentos.store.calls.cache import CacheReply, Estimate, PromptIdentity, Spent
from agentos.store.calls.items import Fence
from agentos.store.errors import NotRetryable, TaskExists, UnknownTask
from agentos.testing.clock import Clock


def prompt(name: str, task_id: str = "task-1") -> PromptIdentity:
    return PromptIdentity(name, task_id, "plan", "model", "0" * 64, "Plan: tea")


def ask(
    on: engine.Runs, who: engine.Worker, name: str, fence: Fence | None = None, *, tokens: int = 10,
    cost: str | None = "1", call_token: UUID | None = None, task_id: str = "task-1",
) -> CacheReply:  # fmt: skip
    estimate = Estimate(tokens, Decimal(cost) if cost else None)
    return on.run(
        cache.cache_begin(prompt(name, task_id), fence, who.worker_id, 60, call_token=call_token, estimate=estimate)
    )


def pay(on: engine.Runs, who: engine.Worker, name: str, reply: CacheReply, spent: Spent, fence: Fence | None = None,
        task_id: str = "task-1") -> bool:  # fmt: skip
    assert reply.call_token is not None
    return on.run(cache.cache_finish(prompt(name, task_id), reply.call_token, fence, who.worker_id, '"tea"', spent))


def left(on: engine.Runs, task_id: str = "task-1") -> dict[str, tuple[Any, Any, Any]]:
    return {line.name: (line.most, line.spent, line.reserved) for line in on.run(budgets.budget_of(task_id))}


@pytest.fixture
def guest(runner: Driver) -> engine.Worker:
    engine.submit(runner)
    return engine.register(runner, role="guest", ttl_s=30)


def budget(on: engine.Runs, limits: Limits, on_exceed: OnExceed = "fail", **more: Any) -> None:
    on.run(budgets.set_budget(more.pop("task_id", "task-1"), limits, on_exceed, **more))


def test_an_estimate_is_reserved_and_the_truth_settles_it(runner: Driver, guest: engine.Worker) -> None:
    budget(runner, Limits(tokens=100, cost=Decimal("5"), calls=3))
    reply = ask(runner, guest, "a", tokens=40, cost="2")
    assert left(runner) == {"max_tokens": (100, 0, 40), "max_cost": (5, 0, 2), "max_calls": (3, 0, 1)}
    assert pay(runner, guest, "a", reply, Spent(20, 5, Decimal("1.25")))
    settled = {"max_tokens": (100, 25, 0), "max_cost": (5, Decimal("1.25"), 0), "max_calls": (3, 1, 0)}
    assert left(runner) == settled
    assert pay(runner, guest, "a", reply, Spent(20, 5, Decimal("1.25")))  # its reply was lost
    assert ask(runner, guest, "a").verdict == "ready"  # a record costs nothing
    assert left(runner) == settled


@pytest.mark.parametrize(
    ("limits", "limit", "asked"),
    [(Limits(tokens=9), "max_tokens", "10"), (Limits(cost=Decimal("0.99")), "max_cost", "1"),
     (Limits(calls=0), "max_calls", "1")],
)  # fmt: skip
def test_what_may_exceed_a_limit_is_refused_with_the_reason(
    runner: Driver, guest: engine.Worker, limits: Limits, limit: str, asked: str
) -> None:
    budget(runner, limits)
    reply = ask(runner, guest, "a")
    assert reply.verdict == "exceeded"
    assert (reply.output["limit"], reply.output["asked"], reply.output["spent"]) == (limit, asked, "0")


def test_a_cost_limit_refuses_a_model_without_a_price(runner: Driver, guest: engine.Worker) -> None:
    budget(runner, Limits(cost=Decimal(5)))
    reply = ask(runner, guest, "a", cost=None)
    assert (reply.verdict, reply.output["limit"], reply.output["asked"]) == ("exceeded", "max_cost", None)


def test_what_calls_in_flight_hold_is_waited_for_and_may_come_free(runner: Driver, guest: engine.Worker) -> None:
    budget(runner, Limits(tokens=50))
    first, second = ask(runner, guest, "a", tokens=40), ask(runner, guest, "b", tokens=20)
    assert (first.verdict, second.verdict) == ("generate", "wait")
    pay(runner, guest, "a", first, Spent(10, 10, Decimal(1)))
    assert ask(runner, guest, "b", tokens=20).verdict == "generate"
    assert ask(runner, guest, "c", tokens=31).verdict == "exceeded"  # whatever comes free


@pytest.mark.parametrize("end", ["abandoned", "dead"])
def test_a_reservation_is_free_when_its_call_is_abandoned_or_its_generator_is_dead(
    runner: Driver, guest: engine.Worker, end: str
) -> None:
    budget(runner, Limits(tokens=50))
    reply = ask(runner, guest, "a", tokens=40)
    assert reply.call_token is not None
    other = engine.register(runner, role="guest")
    if end == "abandoned":
        runner.run(cache.cache_abandon("a", reply.call_token))
    else:
        runner.run(workers.declare_dead([guest.worker_id]))
    assert ask(runner, other, "b", tokens=40).verdict == "generate"


def test_a_lost_reply_reserves_once(runner: Driver, guest: engine.Worker) -> None:
    budget(runner, Limits(tokens=50))
    token = uuid4()
    assert {ask(runner, guest, "a", tokens=40, call_token=token).verdict for _ in range(2)} == {"generate"}
    assert left(runner)["max_tokens"] == (50, 0, 40)


def test_what_was_paid_and_is_not_kept_counts_once(runner: Driver, guest: engine.Worker) -> None:
    budget(runner, Limits(tokens=50))
    reply = ask(runner, guest, "a", tokens=40)
    assert reply.call_token is not None
    for _ in range(2):
        runner.run(cache.cache_discard(prompt("a"), reply.call_token, Spent(7, 3, Decimal("0.1"))))
    assert left(runner)["max_tokens"] == (50, 10, 0)
    assert ask(runner, guest, "a", tokens=40).verdict == "generate"  # nothing is cached
    (used,) = runner.run(budgets.usage_of([]))
    assert (used.calls, used.prompt_tokens, used.completion_tokens, used.cost) == (1, 7, 3, Decimal("0.1"))


def test_an_item_is_parked_by_the_refusal_and_woken_by_a_higher_limit(runner: Driver) -> None:
    engine.submit(runner)
    budget(runner, Limits(cost=Decimal(1)), "park")
    worker = engine.register(runner)
    (item,) = worker.claim()
    reply = ask(runner, worker, "a", worker.fence(item), cost="1.5")
    assert (reply.verdict, engine.place(runner), engine.status(runner)) == ("parked", "waiting", "waiting")
    assert worker.claim() == ()
    assert runner.run(budgets.raise_budget("task-1", Limits(cost=Decimal("0.5")))) == (item.item_id,)
    (again,) = worker.claim()
    assert (again.attempt, again.failures, again.crashes) == (2, 0, 0)
    assert ask(runner, worker, "a", worker.fence(again), cost="1.5").verdict == "generate"
    assert left(runner)["max_cost"][0] == Decimal("1.5")


def test_an_item_is_not_parked_while_a_tool_of_it_runs(runner: Driver) -> None:
    from agentos.store.calls import ledger  # noqa: PLC0415  only here

    item_id = engine.submit(runner)
    budget(runner, Limits(calls=0), "park")
    worker = engine.register(runner)
    (item,) = worker.claim()
    fence = worker.fence(item)
    call = engine.tool_call(item_id=item_id)
    begun = runner.run(ledger.ledger_begin(call, fence, worker.worker_id, on_doubt="fail", produces="[]", expires_s=60))
    assert begun.call_token is not None
    assert ask(runner, worker, "a", fence).verdict == "wait"
    runner.run(
        ledger.ledger_finish(call.key, begun.call_token, fence, worker.worker_id, result="{}", exit_code=0, error=None)
    )
    assert ask(runner, worker, "a", fence).verdict == "parked"


def test_a_childs_calls_count_against_its_parents_budget(runner: Driver, guest: engine.Worker) -> None:
    engine.submit(runner, "child")
    engine.submit(runner, "stranger")
    budget(runner, Limits(tokens=50), "park")
    runner.run(budgets.inherit_budget("task-1", "child"))
    runner.run(budgets.inherit_budget("stranger", "nobody"))
    reply = ask(runner, guest, "a", tokens=30, task_id="child")
    assert ask(runner, guest, "b", tokens=30).verdict == "wait"
    pay(runner, guest, "a", reply, Spent(25, 5, None), task_id="child")
    assert ask(runner, guest, "b", tokens=30).verdict == "exceeded"  # parks nothing: no lease
    assert runner.run(budgets.budget_of("nobody")) == ()
    worker = engine.register(runner)
    held = {item.task_id: item for item in worker.claim(5)}
    assert ask(runner, worker, "c", worker.fence(held["child"]), tokens=30, task_id="child").verdict == "parked"
    assert runner.run(budgets.raise_budget("task-1", Limits(tokens=100))) == (held["child"].item_id,)
    assert engine.place(runner, "child") == "ready"


def test_running_time_counts_over_attempts_and_only_while_running(runner: Driver, clock: Clock) -> None:
    engine.submit(runner)
    budget(runner, Limits(wall_s=100.0), "park")
    worker = engine.register(runner, ttl_s=1000)
    (item,) = worker.claim()
    clock.advance(60)
    runner.run(items.fail(worker.fence(item), engine.ERROR, terminal=False))
    assert 60 <= left(runner)["max_wall_s"][1] < 65
    clock.advance(500)
    runner.run(workers.promote())
    (item,) = worker.claim()
    assert ask(runner, worker, "a", worker.fence(item)).verdict == "generate"
    clock.advance(41)
    reply = ask(runner, worker, "b", worker.fence(item))
    assert reply.verdict == "wait"  # the other call is in flight
    runner.run(
        cache.cache_abandon(
            "a", runner.run(cache.cache_begin(prompt("a"), None, worker.worker_id, 1)).call_token or uuid4()
        )
    )
    assert ask(runner, worker, "b", worker.fence(item)).verdict == "parked"
    assert runner.run(budgets.raise_budget("task-1", Limits(wall_s=50))) == (item.item_id,)


def test_running_time_of_attempts_that_were_given_back_or_taken_away_counts_and_of_prefetched_items_does_not(
    runner: Driver, clock: Clock
) -> None:
    engine.submit(runner)
    budget(runner, Limits(wall_s=1000.0), "park")
    worker = engine.register(runner, ttl_s=10_000)

    def spent() -> int:
        return int(left(runner)["max_wall_s"][1]) // 10 * 10

    (item,) = worker.claim()
    clock.advance(50)
    runner.run(items.release(worker.worker_id, [(item.item_id, item.token)]))
    assert spent() == 50, "given back by a drain"
    prefetched = runner.run(items.turn(worker.worker_id, worker.epoch, [], worker.lanes, 1, claim_no=7)).items
    clock.advance(100)
    runner.run(items.release(worker.worker_id, [(each.item_id, each.token) for each in prefetched]))
    assert (len(prefetched), spent()) == (1, 50), "it never began"
    (item,) = worker.claim()
    clock.advance(60)
    runner.run(items.fail(worker.fence(item), engine.ERROR, terminal=True))
    assert spent() == 110
    runner.run(tasks.retry_task("task-1"))
    assert spent() == 110, "the outcome that a retry takes away"
    (item,) = worker.claim()
    clock.advance(70)
    worker.complete(item)
    runner.run(rewind.rewind_task("task-1", 0, "{}", "alice"))
    assert spent() == 180, "and a rewind"


def test_a_budget_that_is_not_there_cannot_be_raised(runner: Driver, guest: engine.Worker) -> None:
    with pytest.raises(NotRetryable, match="has no budget"):
        runner.run(budgets.raise_budget("task-1", Limits(tokens=1)))
    with pytest.raises(UnknownTask):
        runner.run(budgets.raise_budget("nowhere", Limits(tokens=1)))


def test_a_crowd_never_spends_more_than_the_limit(
    runner: Driver, guest: engine.Worker, conn: psycopg.Connection[Any]
) -> None:
    """Eight at once, each as often as it is let: what is spent is at most the limit, and the limit is used up."""
    budget(runner, Limits(tokens=1000, cost=Decimal(100)))

    def worker(n: int) -> int:
        session, made = runner.session(), 0
        for turn in range(100):
            name = f"{n}-{turn}"
            while (reply := ask(session, guest, name, tokens=20, cost="0.3")).verdict == "wait":
                pass
            if reply.verdict == "exceeded":
                return made
            assert reply.verdict == "generate"
            if turn % 5 == 4:
                session.run(cache.cache_abandon(name, reply.call_token or uuid4()))
                continue
            pay(session, guest, name, reply, Spent(turn % 11, 7, Decimal("0.1")))
            made += 1
        return made

    with ThreadPoolExecutor(8) as threads:
        made = sum(threads.map(worker, range(8)))
    spent = left(runner)["max_tokens"]
    assert 980 < spent[1] <= 1000
    assert spent[2] == 0
    assert left(runner)["max_cost"][1] == made * Decimal("0.1")
    assert conn.execute("SELECT count(*) FROM agentos.llm_cache").fetchone() == (made,)


def test_usage_tells_what_was_spent_and_what_was_saved(runner: Driver, guest: engine.Worker, clock: Clock) -> None:
    pay(runner, guest, "a", ask(runner, guest, "a"), Spent(10, 20, Decimal("0.03")))
    assert {ask(runner, guest, "a").verdict for _ in range(3)} == {"ready"}
    clock.advance(86_400)
    pay(runner, guest, "b", ask(runner, guest, "b"), Spent(1, 2, None))
    newest, former = runner.run(budgets.usage_of(["day", "task"], task_id="task-1"))
    assert (former.calls, former.cost, former.saved_calls, former.saved_cost) == (
        1,
        Decimal("0.03"),
        3,
        Decimal("0.09"),
    )
    assert (former.saved_prompt_tokens, former.saved_completion_tokens, former.task_id) == (30, 60, "task-1")
    assert (newest.calls, newest.cost, newest.unpriced_calls) == (1, Decimal(0), 1)
    (all_of_it,) = runner.run(budgets.usage_of(["model"], model="model"))
    assert (all_of_it.model, all_of_it.day, all_of_it.calls) == ("model", None, 2)
    assert runner.run(budgets.usage_of(["model"], days=1))[0].calls == 1
    assert runner.run(budgets.usage_of(["model"], model="another")) == ()


def test_a_shared_output_becomes_each_tasks_own(runner: Driver, guest: engine.Worker, clock: Clock) -> None:
    engine.submit(runner, "task-2")

    def shared(task_id: str) -> PromptIdentity:
        return PromptIdentity("shared", task_id, "plan", "model", "0" * 64, "p", f"own-{task_id}")

    def begin(task_id: str, fence: Fence | None = None) -> CacheReply:
        return runner.run(cache.cache_begin(shared(task_id), fence, guest.worker_id, 60))

    reply = begin("task-1")
    assert begin("task-2").verdict == "busy"
    assert reply.call_token is not None
    runner.run(cache.cache_finish(shared("task-1"), reply.call_token, None, guest.worker_id, '"tea"'))
    assert begin("task-2").output == "tea"
    clock.advance(61)
    worker = engine.register(runner)
    held = {item.task_id: worker.fence(item) for item in worker.claim(5)}
    again = engine.submit(runner, "task-3")
    fresh = next(item for item in worker.claim(5) if item.item_id == again)
    assert (
        runner.run(cache.cache_begin(shared("task-3"), worker.fence(fresh), worker.worker_id, 60)).verdict == "generate"
    )
    for task_id in ("task-1", "task-2"):  # what a task has used it finds again, although another is being made
        found = runner.run(cache.cache_begin(shared(task_id), held[task_id], worker.worker_id, 60))
        assert (found.verdict, found.output) == ("ready", "tea")


def test_a_cancelled_task_asks_nothing_more_and_reserves_nothing(runner: Driver) -> None:
    engine.submit(runner)
    budget(runner, Limits(tokens=50), "park")
    worker = engine.register(runner)
    (item,) = worker.claim()
    runner.run(tasks.cancel_task("task-1"))
    with pytest.raises(Exception, match="cancelled"):
        ask(runner, worker, "a", worker.fence(item))
    assert left(runner)["max_tokens"] == (50, 0, 0)


@pytest.mark.parametrize("many", [False, True])
def test_a_task_and_its_budget_are_made_by_one_statement(runner: Driver, many: bool) -> None:
    if many:
        call: Any = tasks.submit_many(["task-1"], "shell", "t", ["{}"])
    else:
        call = tasks.submit("task-1", "shell", "t", "{}")
    limited = budgets.with_budget(call, ["task-1"], Limits(tokens=7), "fail")
    assert runner.run(limited)
    assert left(runner) == {"max_tokens": (7, 0, 0)}
    with pytest.raises(TaskExists):
        runner.run(limited)
