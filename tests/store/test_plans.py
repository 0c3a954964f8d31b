"""The plans of the hot statements, seen inside the functions by auto_explain, with and without statistics that lie."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.store import engine
from tests.store.test_scale import FILL

from agentos.store.calls import checkpoints, items, ledger, stream, workers
from agentos.store.calls.batch import write_batch
from agentos.store.connect import Database, OnConnection, connect
from agentos.store.run import Call

SETTINGS = (
    "LOAD 'auto_explain'",
    "SET auto_explain.log_min_duration = 0",
    "SET auto_explain.log_nested_statements = on",
    "SET auto_explain.log_format = json",
    "SET auto_explain.log_level = notice",
    "SET client_min_messages = notice",
)

Plans = Callable[[Call[Any]], list[dict[str, Any]]]


@pytest.fixture
def plans_of(database_dsn: str) -> Iterator[Plans]:
    """`plans_of(call)`: the plans of all statements that the call's functions run."""
    with connect(database_dsn) as conn:
        try:
            for setting in SETTINGS:
                conn.execute(setting)
        except psycopg.errors.InsufficientPrivilege:
            pytest.skip("auto_explain needs a superuser")
        said: list[str] = []
        conn.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))

        def run(call: Call[Any]) -> list[dict[str, Any]]:
            said.clear()
            OnConnection(conn).run(call)
            return [json.loads(text[text.index("{") :]) for text in said if text.startswith("duration")]

        yield run


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def scans(plans: list[dict[str, Any]], table: str) -> set[tuple[str, str | None]]:
    """How these statements read `table`: (kind of scan, index)."""
    found = set()
    for one in plans:
        for node in nodes(one["Plan"]):
            if node.get("Relation Name") == table and "Scan" in node["Node Type"]:
                found.add((node["Node Type"], node.get("Index Name")))
    return found


# The pick, and the look for work that must run alone; then the delete of what was picked.
LOOKED = {("Index Scan", "lease_ready_pkey"), ("Index Only Scan", "lease_ready_pkey")}
CLAIMED = {*LOOKED, ("Tid Scan", None)}


def claim_call(worker: engine.Worker) -> Call[Any]:
    return items.claim(worker.worker_id, 0, worker.lanes, 8, [-lane for lane in worker.lanes])


@pytest.mark.unsound("its million ready rows are of no item")
def test_a_claim_walks_the_index_with_no_rows_with_a_million_and_with_statistics_that_lie(
    db: Database, conn: psycopg.Connection[Any], plans_of: Plans
) -> None:
    worker = engine.register(db)
    (nobodys,) = db.run(workers.lanes_of(["nobody"], ["serves"]))
    assert scans(plans_of(claim_call(worker)), "lease_ready") == LOOKED
    conn.execute("VACUUM ANALYZE agentos.lease_ready")
    assert scans(plans_of(claim_call(worker)), "lease_ready") == LOOKED, "analyzed when it was empty"
    conn.execute(
        "INSERT INTO agentos.lease_ready SELECT %s, n, n, -n, 0, 0, 0 FROM generate_series(1, 1000000) n", (nobodys,)
    )
    assert scans(plans_of(claim_call(worker)), "lease_ready") == LOOKED, "the statistics say empty"
    conn.execute("VACUUM ANALYZE agentos.lease_ready")
    assert scans(plans_of(claim_call(worker)), "lease_ready") == LOOKED
    conn.execute("DELETE FROM agentos.lease_ready")
    assert scans(plans_of(claim_call(worker)), "lease_ready") == LOOKED, "the statistics say a million"
    engine.submit(db)
    assert scans(plans_of(claim_call(worker)), "lease_ready") == CLAIMED


@pytest.mark.unsound("its scheduled rows are of no item")
def test_promote_walks_the_index_of_run_at_only_as_far_as_what_is_due(
    conn: psycopg.Connection[Any], plans_of: Plans
) -> None:
    conn.execute(
        "INSERT INTO agentos.scheduled"
        " SELECT -n, now() + interval '1 h', 1, n, 0, 0, 0 FROM generate_series(1, 100000) n"
    )
    conn.execute("VACUUM ANALYZE agentos.scheduled")
    plans = plans_of(workers.promote())
    assert ("Index Scan", "scheduled_run_at") in scans(plans, "scheduled")
    bounded = [
        node
        for one in plans
        for node in nodes(one["Plan"])
        if node.get("Index Name") == "scheduled_run_at" and "Index Cond" in node
    ]
    assert bounded, "without a bound it walks over all that is scheduled"


def test_a_fence_and_a_completion_find_their_leases_by_key(
    db: Database, conn: psycopg.Connection[Any], plans_of: Plans
) -> None:
    worker = engine.register(db)
    conn.execute(FILL, {"lane": worker.lanes[0], "count": 4000})
    held = worker.claim(4000)
    conn.execute("VACUUM ANALYZE agentos.lease_held")
    done = [(item.item_id, item.token, "1") for item in held[:5]]
    assert {kind for kind, _ in scans(plans_of(items.complete(worker.worker_id, done)), "lease_held")} <= {
        "Index Scan",
        "Bitmap Heap Scan",
    }
    renewed = scans(plans_of(items.renew(worker.fence(held[9]), 60)), "lease_held")
    assert renewed == {("Index Scan", "lease_held_pkey")}


@pytest.mark.unsound("its items are of no whole task")
def test_neither_claim_nor_completion_walks_over_leases_of_the_past(
    database_dsn: str, db: Database, conn: psycopg.Connection[Any], plans_of: Plans
) -> None:
    worker = engine.register(db, ttl_s=600)
    conn.execute(FILL, {"lane": worker.lanes[0], "count": 6000})
    with connect(database_dsn) as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1 FROM agentos.lanes")
        while len(held := worker.claim(200)) == 200:
            worker.complete(*held)
        conn.execute("ANALYZE agentos.lease_held, agentos.lease_ready")
        engine.submit(db)
        plans_of(claim_call(worker))  # it walks over them once and learns where the lane begins
        engine.submit(db, "task-2")
        (held_now,) = worker.claim()
        ended = plans_of(items.complete(worker.worker_id, [(held_now.item_id, held_now.token, "1")]))
    assert {index for _, index in scans(ended, "lease_held")} <= {"lease_held_pkey", None}


LIE = "UPDATE pg_class SET reltuples = {}, relpages = 40 WHERE relnamespace = 'agentos'::regnamespace AND relkind = 'r'"
LIES = {"empty": LIE.format(0), "a few": LIE.format(3), "honest": "ANALYZE agentos.lease_held"}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_whatever_ends_or_fences_many_leases_reads_no_others(
    db: Database, conn: psycopg.Connection[Any], plans_of: Plans, lie: str
) -> None:
    """Autovacuum analyzes the table at any moment, also when nothing is held: all that was held was then read for each
    pair, which doubled the price of an item with one worker of eight slots, and grows with the fleet.
    """
    worker = engine.register(db)
    conn.execute(FILL, {"lane": worker.lanes[0], "count": 600})
    held = sorted(worker.claim(600))
    conn.execute(lie.encode())
    done = [(item.item_id, item.token, "1") for item in held[:32]]
    pairs = [(item.item_id, item.token) for item in held[32:64]]
    commit = [
        checkpoints.commit_checkpoint(engine.checkpoint(i.task_id, i.item_id), worker.fence(i)) for i in held[64:72]
    ]
    told = [stream.Told(worker.fence(item), item.attempt, "progress", {}) for item in held[72:80]]
    begun = [
        ledger.ledger_begin(
            engine.tool_call(str(i.item_id), i.task_id, i.item_id), worker.fence(i), worker.worker_id, on_doubt="retry",
            produces="[]", expires_s=60, call_token=UUID(int=i.item_id),
        )
        for i in held[64:72]
    ]  # fmt: skip
    finished = [
        ledger.ledger_finish(
            str(i.item_id), UUID(int=i.item_id), worker.fence(i), worker.worker_id, result="1", exit_code=0, error=None
        )
        for i in held[64:72]
    ]
    for call in (
        items.complete(worker.worker_id, done), items.release(worker.worker_id, pairs), write_batch([*commit, *begun]),
        write_batch(finished), stream.tell(worker.worker_id, told),
    ):  # fmt: skip
        plans = plans_of(call)
        assert unbounded(plans, "lease_held") == [], call.sql
        if "write_batch" in call.sql:
            for table in ("task_heads", "tool_ledger", "work_items"):
                assert unbounded(plans, table) == [], table


@pytest.mark.parametrize("lie", [LIE.format(0), LIE.format(3), LIE.format(1).replace("40", "400")])
def test_a_claim_looks_up_the_items_it_took_and_no_others(
    db: Database, conn: psycopg.Connection[Any], plans_of: Plans, lie: str
) -> None:
    """After a purge the items are a few in many pages; then each claim read all that came since."""
    worker = engine.register(db)
    conn.execute(FILL, {"lane": worker.lanes[0], "count": 5000})
    conn.execute("VACUUM ANALYZE agentos.work_items, agentos.task_heads")
    conn.execute(lie.encode())
    turn = items.turn(worker.worker_id, 0, [], worker.lanes, 32, [-lane for lane in worker.lanes], claim_no=1)
    for call in (claim_call(worker), turn):
        plans = plans_of(call)
        assert scans(plans, "work_items") == {("Index Scan", "work_items_pkey")}, call.sql
        for table in ("work_items", "task_heads", "lease_held"):
            assert unbounded(plans, table) == [], table


def unbounded(plans: list[dict[str, Any]], table: str) -> list[dict[str, Any]]:
    """Reads of `table` that no key bounds."""
    return [
        node
        for one in plans
        for node in nodes(one["Plan"])
        if node.get("Relation Name") == table
        and "Scan" in node["Node Type"]
        and not {"Index Cond", "Recheck Cond", "TID Cond"} & node.keys()
    ]


def test_no_function_that_forces_its_plan_is_compiled_at_every_call(conn: psycopg.Connection[Any]) -> None:
    """Before 18 a plan that is forced costs 1e10, and a server with jit on compiles it: 0.3 s per claim were seen."""
    forced = conn.execute(
        "SELECT proname, 'jit=off' = ANY (proconfig) FROM pg_proc"
        " WHERE pronamespace = 'agentos'::regnamespace AND array_to_string(proconfig, ' ') LIKE '%enable_%'"
    ).fetchall()
    assert {"claim", "complete", "end_leases", "turn", "write_batch"} <= dict(forced).keys()
    assert all(dict(forced).values()), forced


def test_shared_writes_find_leases_heads_and_calls_by_key_in_the_order_given(
    db: Database, conn: psycopg.Connection[Any], plans_of: Plans
) -> None:
    for n in range(8):
        engine.submit(db, f"task-{n}")
    worker = engine.register(db)
    held = worker.claim(8)
    commit = [checkpoints.commit_checkpoint(engine.checkpoint(i.task_id, i.item_id), worker.fence(i)) for i in held]
    begin = [
        ledger.ledger_begin(
            engine.tool_call(i.task_id, i.task_id, i.item_id), worker.fence(i), worker.worker_id, on_doubt="retry",
            produces="[]", expires_s=60, call_token=UUID(int=i.item_id),
        )
        for i in held
    ]  # fmt: skip
    finish = [
        ledger.ledger_finish(
            i.task_id, UUID(int=i.item_id), worker.fence(i), worker.worker_id, result="1", exit_code=0, error=None
        )
        for i in held
    ]
    plans = plans_of(write_batch([*commit, *begin])) + plans_of(write_batch(finish))
    assert scans(plans, "lease_held") == {("Index Scan", "lease_held_pkey")}
    assert {kind for kind, _ in scans(plans, "task_heads")} <= {"Index Scan", "Index Only Scan"}
    assert scans(plans, "tool_ledger") == {("Index Scan", "tool_ledger_pkey")}
    joins = {node["Node Type"] for one in plans for node in nodes(one["Plan"]) if "Join" in node["Node Type"]}
    assert not joins, "a hash or a merge would lock in an order of its own"
