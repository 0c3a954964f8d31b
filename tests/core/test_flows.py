"""Flows under lost replies and cancellation: nothing is done twice, nobody waits for himself."""

import asyncio
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from tests.core.lossy import Lossy, T
from tests.store.engine import Worker, register, submit

from agentos.core.evidence import PackVerdict
from agentos.core.flows.model import generate_once
from agentos.core.flows.tools import ToolOutcome, ToolPolicy, call_tool
from agentos.core.identity import prompt_identity, tool_identity
from agentos.core.lease import Lease
from agentos.store import connect
from agentos.store.calls.items import ClaimedItem
from agentos.store.calls.ledger import OnDoubt
from agentos.store.calls.tasks import cancel_task
from agentos.store.connect import AsyncDatabase, Database
from agentos.store.errors import DatabaseUnavailable, InDoubt, LeaseLost, TaskCancelled
from agentos.store.run import Call, Flow, adrive, arun_call, drive

HOLDS = PackVerdict(True, [], "")


class Held:
    """A held item, and its own tool calls and prompts."""

    def __init__(self, db: Database) -> None:
        submit(db)
        self.worker: Worker = register(db)
        (self.item,) = self.worker.claim()
        self.calls = 0

    def lease(self, item: ClaimedItem | None = None) -> Lease:
        held = item or self.item
        return Lease(self.worker.fence(held), "task-1", held.attempt)

    def tool(self, execute: Any = None, policy: ToolPolicy | None = None, **more: Any) -> Flow[ToolOutcome]:
        identity = tool_identity("task-1", self.item.item_id, "bash", "make", key=None, ordinal=0, nth=1)
        lease = more.pop("lease", self.lease())
        return call_tool(
            identity, lease, self.worker.worker_id, policy or ToolPolicy(), execute or self.count,
            verify=lambda *_: HOLDS, **more,
        )  # fmt: skip

    def count(self, *_: Any) -> dict[str, int]:
        self.calls += 1
        return {"calls": self.calls}

    def prompt(self, generate: Any) -> Flow[Any]:
        return generate_once(
            prompt_identity("plan", "p", "m", "task-1"), self.lease(), self.worker.worker_id, generate, expires_s=60
        )


@pytest.fixture
def held(db: Database) -> Held:
    return Held(db)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are tried twice, without a wait."""
    monkeypatch.setattr("agentos.core.flows.patience.OUTAGE_WAITS_S", (0.0,))


@pytest.mark.parametrize("before", [False, True], ids=["reply", "call"])
@pytest.mark.parametrize("function", ["ledger_begin", "ledger_finish"])
def test_a_lost_reply_of_the_ledger_executes_nothing_twice(
    held: Held, db: Database, function: str, before: bool
) -> None:
    lossy = Lossy(db, {function}, before=before)
    assert drive(lossy, held.tool()).result == {"calls": 1}
    assert lossy.lost == [function]
    assert drive(db, held.tool()) == ToolOutcome({"calls": 1}, replayed=True, repaired=False)
    assert held.calls == 1


@pytest.mark.parametrize("before", [False, True], ids=["reply", "call"])
@pytest.mark.parametrize("function", ["cache_begin", "cache_finish"])
def test_a_lost_reply_of_the_cache_generates_nothing_twice(
    held: Held, db: Database, function: str, before: bool
) -> None:
    lossy = Lossy(db, {function}, before=before)
    assert drive(lossy, held.prompt(held.count)).output == {"calls": 1}
    assert lossy.lost == [function]
    assert drive(db, held.prompt(held.count)).cached is True
    assert held.calls == 1


def test_a_call_that_could_not_be_recorded_is_in_doubt_for_its_own_process_too(
    held: Held, db: Database, impatient: None
) -> None:
    with pytest.raises(DatabaseUnavailable):
        drive(Lossy(db, {"ledger_finish"}, before=True, all=True), held.tool())
    with pytest.raises(InDoubt):
        drive(db, held.tool())
    assert drive(db, held.tool(policy=ToolPolicy(on_doubt="retry"))).result == {"calls": 2}


@pytest.mark.parametrize("lease", [True, False], ids=["lease", "guest"])
@pytest.mark.parametrize("on_doubt", ["fail", "retry"])
def test_a_call_whose_begin_was_never_answered_is_executed_by_the_next_who_asks(
    held: Held, db: Database, impatient: None, lease: bool, on_doubt: OnDoubt
) -> None:
    more: dict[str, Any] = {"policy": ToolPolicy(on_doubt), "lease": held.lease() if lease else None}
    with pytest.raises(DatabaseUnavailable):
        drive(Lossy(db, {"ledger_begin"}, all=True), held.tool(**more))
    with pytest.raises(DatabaseUnavailable):
        drive(Lossy(db, {"ledger_resume"}, all=True), held.tool(**more))
    assert held.calls == 0
    assert drive(db, held.tool(**more)).result == {"calls": 1}
    assert drive(db, held.tool(**more)).replayed


def test_a_lost_reply_of_a_resumption_executes_once(held: Held, db: Database, impatient: None) -> None:
    with pytest.raises(DatabaseUnavailable):
        drive(Lossy(db, {"ledger_begin"}, all=True), held.tool(lease=None))
    lossy = Lossy(db, {"ledger_resume"})
    assert drive(lossy, held.tool(lease=None)).result == {"calls": 1}
    assert lossy.lost == ["ledger_resume"]


def test_a_call_forced_to_execute_is_begun_once_although_the_reply_was_lost(
    held: Held, db: Database, impatient: None, conn: psycopg.Connection[Any]
) -> None:
    drive(db, held.tool())
    assert drive(Lossy(db, {"ledger_begin"}), held.tool(force=True)).result == {"calls": 2}
    assert conn.execute("SELECT executions FROM agentos.tool_ledger").fetchone() == (2,)


def test_what_another_thread_has_just_begun_is_waited_for(held: Held, db: Database) -> None:
    """Its token is known to nobody but itself when the second thread asks."""
    begun, asked = threading.Event(), threading.Event()

    class Slow(Lossy):
        def run(self, call: Call[T]) -> T:
            reply = self.db.run(call)
            if "agentos.ledger_begin(" in call.sql:
                begun.set()
                asked.wait(10)
            return reply

    class Second(Lossy):
        def run(self, call: Call[T]) -> T:
            try:
                return self.db.run(call)
            finally:
                asked.set()

    with ThreadPoolExecutor() as pool:
        first = pool.submit(drive, Slow(db, set()), held.tool(lease=None))
        assert begun.wait(10)
        second = pool.submit(drive, Second(db, set()), held.tool(lease=None))
        assert (first.result(60).replayed, second.result(60).replayed) == (False, True)
    assert held.calls == 1


@pytest.mark.parametrize("lost", [{"cache_begin"}, {"cache_finish", "cache_abandon"}], ids=["begin", "finish"])
def test_a_generation_whose_end_could_not_be_recorded_is_made_again_by_the_next_who_asks(
    held: Held, db: Database, impatient: None, lost: set[str]
) -> None:
    with pytest.raises(DatabaseUnavailable):
        drive(Lossy(db, lost, before=lost != {"cache_begin"}, all=True), held.prompt(lambda: "lost"))
    assert drive(db, held.prompt(lambda: "text")).output == "text"


def test_a_generator_that_ends_its_thread_gives_its_generation_up(held: Held, db: Database) -> None:
    with pytest.raises(SystemExit):
        drive(db, held.prompt(sys.exit))
    assert drive(db, held.prompt(lambda: "text")).output == "text"


def test_a_cancelled_tool_is_in_doubt_and_its_generation_is_given_up(held: Held, db: Database) -> None:
    """Both on the event loop, where cancelling reaches the flow."""

    async def scenario() -> None:
        adb = await AsyncDatabase.open(db.dsn)
        for flow in (held.tool, held.prompt):
            inside = asyncio.Event()

            async def wait(*_: Any, inside: asyncio.Event = inside) -> None:
                inside.set()
                await asyncio.Event().wait()

            running = asyncio.create_task(adrive(adb, flow(wait)))
            await asyncio.wait_for(inside.wait(), 10)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        with pytest.raises(InDoubt):
            await adrive(adb, held.tool())
        assert (await adrive(adb, held.prompt(lambda: "text"))).output == "text"
        await adb.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("function", "flow"), [("ledger_finish", "tool"), ("cache_finish", "prompt")])
async def test_a_cancellation_while_it_is_recorded_leaves_nothing_in_doubt_and_pays_nothing_again(
    held: Held, adb: AsyncDatabase, monkeypatch: pytest.MonkeyPatch, function: str, flow: str
) -> None:
    """Such as a worker's drain, or a timeout of the handler's own, in the moment in which the record is written."""
    recording = asyncio.Event()

    async def cut_off(conn: Any, call: Call[Any]) -> Any:
        if f"agentos.{function}(" in call.sql and not recording.is_set():
            recording.set()
            await asyncio.Event().wait()
        return await arun_call(conn, call)

    monkeypatch.setattr(connect, "arun_call", cut_off)
    running = asyncio.create_task(adrive(adb, getattr(held, flow)(held.count)))
    await asyncio.wait_for(recording.wait(), 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    again = await adrive(adb, getattr(held, flow)(held.count))
    assert again.replayed if flow == "tool" else again.cached
    assert held.calls == 1


def test_an_async_tool_is_refused_where_nobody_awaits(held: Held, db: Database) -> None:
    async def tool(*_: Any) -> None:
        """Never awaited."""

    with pytest.raises(Exception, match="async"):
        drive(db, held.tool(tool))
    assert drive(db, held.tool()).result == {"calls": 1}


def test_a_stale_lease_begins_and_finishes_nothing(held: Held, db: Database, conn: psycopg.Connection[Any]) -> None:
    def lose(*_: Any) -> dict[str, int]:
        conn.execute("UPDATE agentos.lease_held SET token = gen_random_uuid()")
        return held.count()

    with pytest.raises(LeaseLost):
        drive(db, held.tool(lose))
    with pytest.raises(LeaseLost):
        drive(db, held.tool())
    with pytest.raises(LeaseLost):
        drive(db, held.prompt(held.count))
    assert held.calls == 1
    assert conn.execute("SELECT state FROM agentos.tool_ledger").fetchone() == ("begun",)


def test_a_cancelled_task_begins_nothing_more(held: Held, db: Database) -> None:
    db.run(cancel_task("task-1"))
    with pytest.raises(TaskCancelled):
        drive(db, held.tool())
    with pytest.raises(TaskCancelled):
        drive(db, held.prompt(held.count))
    assert held.calls == 0


def test_a_result_that_stands_for_a_failure_is_recorded_with_it_and_runs_again(
    held: Held, db: Database, conn: psycopg.Connection[Any]
) -> None:
    policy = ToolPolicy(failure=lambda result: OSError("exit 3") if result["exit_code"] else None)
    with pytest.raises(OSError, match="exit 3"):
        drive(db, held.tool(lambda _: {"exit_code": 3}, policy))
    row = conn.execute("SELECT state, exit_code, result ->> 'exit_code', error FROM agentos.tool_ledger").fetchone()
    assert row == ("failed", 3, "3", "OSError: exit 3")
    assert drive(db, held.tool(lambda _: {"exit_code": 0}, policy)).replayed is False
