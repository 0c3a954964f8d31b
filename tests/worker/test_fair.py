"""The order of lanes: fair to tenants by weight, few looked at, none forgotten."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

from tests.store import engine

from agentos.store.calls import items, tasks
from agentos.store.calls.flow import ServedLane
from agentos.store.connect import AsyncDatabase, Database
from agentos.worker.fair import COLD_MOST, WARM_MOST, Fair
from agentos.worker.lanes import Lanes


@dataclass
class Backlog:
    """Ready items by lane, and a claim as the engine makes it."""

    ready: Counter[int]

    def claim(self, fair: Fair, most: int = 8) -> list[int]:
        asked, taken = fair.order(), list[int]()
        for lane in asked:
            n = min(self.ready[lane], most - len(taken))
            self.ready[lane] -= n
            taken += [lane] * n
        fair.claimed(asked, cast(Any, [Lane(lane) for lane in taken]), full=len(taken) >= most)
        return taken


@dataclass(frozen=True)
class Lane:
    lane: int


def fair_of(*weights: float) -> Fair:
    fair = Fair()
    fair.serve([ServedLane(n + 1, f"t{n}", weight) for n, weight in enumerate(weights)])
    return fair


def test_turns_are_as_the_weights_are() -> None:
    fair, backlog = fair_of(3, 1), Backlog(Counter({1: 100_000, 2: 100_000}))
    taken = Counter(lane for _ in range(400) for lane in backlog.claim(fair))
    print(f"weights 3:1, items {taken[1]}:{taken[2]}")
    assert abs(taken[1] / taken[2] - 3) < 0.1


def test_a_tenant_that_was_away_gets_no_more_than_its_turn() -> None:
    fair, backlog = fair_of(1, 1), Backlog(Counter({1: 10_000}))
    for _ in range(100):
        backlog.claim(fair)
    backlog.ready[2] = 10_000
    taken = Counter(lane for _ in range(100) for lane in backlog.claim(fair))
    assert abs(taken[1] - taken[2]) <= 16


def test_the_first_item_of_another_tenant_is_in_the_next_claim() -> None:
    fair, backlog = fair_of(1, 1, 1), Backlog(Counter({1: 10**6, 2: 10**6}))
    for _ in range(50):
        backlog.claim(fair)
    backlog.ready[3] = 1
    assert 3 in backlog.claim(fair)


def test_of_a_thousand_lanes_a_claim_looks_at_few_and_finds_an_item_within_eight() -> None:
    fair, backlog = fair_of(*[1.0] * 1000), Backlog(Counter({1: 10**6, 2: 10**6}))
    for _ in range(50):
        backlog.claim(fair)
    assert len(fair.order()) <= COLD_MOST + WARM_MOST
    backlog.ready[777] = 1
    claims = next(n for n in range(1, 100) if 777 in backlog.claim(fair))
    print(f"1,000 lanes: the first item of one is taken by claim {claims}")
    assert claims <= 8


def test_a_claim_that_is_not_full_is_followed_by_a_look_at_all() -> None:
    fair, backlog = fair_of(*[1.0] * 1000), Backlog(Counter({1: 8}))
    backlog.claim(fair)
    backlog.claim(fair)
    assert len(fair.order()) == 1000
    assert sorted(fair.lanes) == list(range(1, 1001))


def test_lanes_that_are_gone_are_not_asked_and_new_ones_are() -> None:
    fair = fair_of(1, 1)
    fair.claimed([1, 2], cast(Any, [Lane(1)]), full=False)
    fair.serve([ServedLane(2, "t1"), ServedLane(9, "t9")])
    assert sorted(fair.order()) == [2, 9]
    assert not Fair()


async def test_a_backlog_of_fifty_thousand_delays_another_tenants_first_item_by_two_claims_at_most(
    db: Database, adb: AsyncDatabase
) -> None:
    """The lanes and claims of a real worker, with a tenant it has never heard of."""
    for start in range(0, 50_000, 10_000):
        ids = [f"big-{n}" for n in range(start, start + 10_000)]
        db.run(tasks.submit_many(ids, "shell", "t", ["{}"] * 10_000, tenant="big"))
    worker = engine.register(db)
    lanes = Lanes(adb)
    await lanes.serve(("default",), ["shell"], [0], solo=False)

    async def claim() -> set[str]:
        asked = lanes.free.order()
        claimed = await adb.run(items.claim(worker.worker_id, 0, asked, 8))
        lanes.free.claimed(asked, claimed.items, full=len(claimed.items) >= 8)
        return {item.task_id for item in claimed.items}

    for _ in range(20):
        await claim()
    db.run(tasks.submit("small", "shell", "t", "{}", tenant="small"))
    lanes.woken = True
    assert await lanes.look_if_new(at_once=True)
    claims = 1
    while "small" not in await claim():
        claims += 1
    print(f"the first item of another tenant: claim {claims}")
    assert claims <= 2
