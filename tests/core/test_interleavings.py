"""Branches of one item that call tools at the same time, in any order, in a process that dies anywhere: each effect
happens once, and each result lands where it belongs.
"""

import asyncio
import random
from collections import Counter
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.store import engine

from agentos.core.evidence import PackVerdict
from agentos.core.flows.tools import NOT_DONE, Done, ToolCall, ToolPolicy
from agentos.core.lease import Lease
from agentos.core.scope import ItemScope
from agentos.store.calls import items
from agentos.store.connect import AsyncDatabase, Database
from agentos.store.run import Call, adrive

BRANCHES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=3), min_size=1, max_size=4)
DEATHS = st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=2)


HOLDS = PackVerdict(True, [], "")


class Died(BaseException):
    """What is left of a process that was killed: nothing of it goes on."""


class World:
    """What the tool did, told by the idempotency key; `serial` makes every effect different from every other."""

    def __init__(self) -> None:
        self.effects: list[tuple[str, int]] = []

    def result_of(self, key: str) -> dict[str, int] | None:
        found = [(n, argument) for n, (known, argument) in enumerate(self.effects) if known == key]
        return {"serial": found[0][0], "argument": found[0][1]} if found else None


class Process:
    """Runs calls in an order of its own, until it dies before or after its n-th step."""

    def __init__(self, db: AsyncDatabase, seed: int, death: tuple[int, bool] | None) -> None:
        self._db = db
        self._random = random.Random(seed)
        self._death = death
        self._steps = 0
        self.dead = False

    async def step(self, work: Any) -> Any:
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)
        n, self._steps = self._steps, self._steps + 1
        self._die_if((n, True))
        made = await work()
        self._die_if((n, False))
        return made

    def _die_if(self, here: tuple[int, bool]) -> None:
        self.dead = self.dead or here == self._death
        if self.dead:
            raise Died

    async def run(self, call: Call[Any]) -> Any:
        return await self.step(lambda: self._db.run(call))


async def attempt(
    db: Database, task_id: str, process: Process, world: World, branches: list[list[int]], n: int
) -> list[Any]:
    """One claim of the item, and what the handler returned. Raises Died."""
    worker = engine.register(db)
    (item,) = db.run(items.claim_task(worker.worker_id, worker.epoch, task_id, 1))
    scope = ItemScope(
        item, Lease(worker.fence(item), item.task_id, item.attempt),
        verify_row=lambda _: HOLDS, verify=lambda *_: HOLDS,
    )  # fmt: skip

    async def effect(call: ToolCall, argument: Any) -> Any:
        async def happen() -> dict[str, int]:
            world.effects.append((call.idempotency_key, argument))
            return {"serial": len(world.effects) - 1, "argument": argument}

        return await process.step(happen)

    def probe(call: ToolCall) -> Any:
        found = world.result_of(call.idempotency_key)
        return NOT_DONE if found is None else Done(found)

    policy = ToolPolicy(on_doubt="probe", probe=probe)

    async def branch(arguments: list[int], key: str | None) -> list[Any]:
        made = []
        for step, argument in enumerate(arguments):
            named = f"{key}-{step}" if key else None
            flow = scope.tool("do", argument, execute=effect, policy=policy, key=named, ordered=False)
            made.append((await adrive(process, flow)).result)
        return made

    try:
        if n:
            await adrive(process, scope.resume())
        made = await asyncio.gather(
            *(branch(arguments, f"b{i}" if i % 2 else None) for i, arguments in enumerate(branches)),
            return_exceptions=True,  # what a branch had sent when another died is over before the lease is taken back
        )
        for died in made:
            if isinstance(died, BaseException):
                raise died
        return list(made)
    except BaseException:
        engine.crash(db, worker)
        raise


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(branches=BRANCHES, deaths=DEATHS, seed=st.integers(0, 2**32))
def test_every_effect_is_once_and_every_result_is_where_it_belongs(
    db: Database, branches: list[list[int]], deaths: list[tuple[int, bool]], seed: int
) -> None:
    task_id = f"task-{uuid4()}"  # not of the example: hypothesis may ask for the same one again
    engine.submit(db, task_id)
    world = World()

    async def to_the_end() -> list[Any]:
        adb = await AsyncDatabase.open(db.dsn)
        try:
            for n, death in enumerate([*deaths, None]):
                try:
                    return await attempt(db, task_id, Process(adb, seed + n, death), world, branches, n)
                except Died:
                    continue
        finally:
            await adb.close()
        raise AssertionError("the last attempt does not die")

    results = asyncio.run(to_the_end())
    assert [[each["argument"] for each in made] for made in results] == branches
    asked = Counter(argument for branch in branches for argument in branch)
    assert Counter(argument for _, argument in world.effects) == asked
    serials = [each["serial"] for made in results for each in made]
    assert sorted(serials) == list(range(len(world.effects)))
    db.run(ALL_DONE)


ALL_DONE: Call[None] = Call(
    "WITH gone AS (DELETE FROM agentos.lease_held RETURNING *) INSERT INTO agentos.outcomes"
    " (item_id, attempt, failures, crashes, status, finished_at)"
    " SELECT item_id, attempt, failures, crashes, 'completed', now() FROM gone RETURNING 1",
    (), lambda _: None,
)  # fmt: skip
