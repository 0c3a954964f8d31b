"""The plans of claims under limits: by index, with no rows, with many, with statistics that lie."""

from typing import Any

import psycopg
import pytest
from tests.store import engine
from tests.store.test_plans import CLAIMED, LOOKED, Plans, nodes, plans_of, scans

from agentos.store.calls import flow, items
from agentos.store.connect import Database
from agentos.store.run import Call

__all__ = ["plans_of"]

TENANTS = 200
GRANTS = """
    INSERT INTO agentos.limit_grants (limit_id, key, granted_at, item_id, token)
    SELECT x.limit_id, 't' || n %% %(tenants)s, clock_timestamp() - interval '1 h', -n, gen_random_uuid()
      FROM agentos.limits x, generate_series(1, %(count)s) n
"""
HELD = """
    INSERT INTO agentos.lease_held
          (item_id, worker_id, token, lane, rank, attempt, failures, crashes, started, claimed_at)
    SELECT -n, 1, gen_random_uuid(), 1, n, 1, 0, 0, true, clock_timestamp() FROM generate_series(1, %(count)s) n
"""
COUNTED = {("Index Scan", "limit_grants_gate"), ("Index Only Scan", "limit_grants_gate")}
KEYED = ("limit_grants", "lease_held", "lease_ready", "limit_gates", "lanes")
BY_ITEM = {("Index Scan", "lease_held_pkey"), ("Index Only Scan", "lease_held_pkey")}


def by_index(plans: list[dict[str, Any]]) -> None:
    """Whatever grows is found by its key, and never walked over."""
    assert ("Index Scan", "lease_ready_pkey") in scans(plans, "lease_ready")
    assert scans(plans, "lease_ready") <= CLAIMED
    assert scans(plans, "limit_grants") - {("Tid Scan", None)} <= COUNTED
    assert scans(plans, "lease_held") <= BY_ITEM
    for table in ("limit_gates", "work_items"):
        assert {kind for kind, _ in scans(plans, table)} <= {"Index Scan", "Index Only Scan"}, table
    for node in (node for one in plans for node in nodes(one["Plan"])):
        if node.get("Relation Name") in KEYED and "Index Name" in node:
            assert "Index Cond" in node, f"all of {node['Relation Name']} is read"


@pytest.mark.unsound("its grants and leases are of no item")
@pytest.mark.parametrize("forced", ["force_generic_plan", "force_custom_plan"])
def test_a_claim_under_limits_walks_indexes_whatever_the_statistics_say(
    db: Database, conn: psycopg.Connection[Any], plans_of: Plans, forced: str
) -> None:
    plans_of(Call("SELECT set_config('plan_cache_mode', $1::text, false)", (forced,), len))
    worker = engine.register(db, ttl_s=600)
    db.run(flow.set_limit("kind", "shell", "concurrency", 3, per="tenant"))
    db.run(flow.set_limit("kind", "shell", "rate", 100_000, per="tenant", period_s=60.0))
    for n in range(TENANTS):
        db.run(flow.lane_of("default", "shell", 0, f"t{n}"))
    lanes = [each.lane for each in db.run(flow.served_lanes(["default"], ["shell"], [0])).lanes if each.limited]
    epoch = conn.execute("SELECT claim_epoch FROM agentos.workers").fetchone()
    assert epoch is not None
    claim = items.claim_limited(worker.worker_id, epoch[0], lanes, 8)

    assert scans(plans_of(claim), "lease_ready") <= LOOKED, "nothing is ready"
    conn.execute("VACUUM ANALYZE agentos.limit_grants, agentos.lease_held, agentos.lease_ready, agentos.limit_gates")
    engine.submit(db, "task-empty", tenant="t0")
    by_index(plans_of(claim))
    conn.execute(GRANTS, {"tenants": TENANTS, "count": 20_000})
    conn.execute(HELD, {"count": 20_000})
    engine.submit(db, "task-stale", tenant="t1")
    by_index(plans_of(claim))
    conn.execute("ANALYZE agentos.limit_grants, agentos.lease_held, agentos.lanes")
    engine.submit(db, "task-many", tenant="t2")
    by_index(plans_of(claim))
    conn.execute("DELETE FROM agentos.limit_grants WHERE item_id < 0")
    conn.execute("DELETE FROM agentos.lease_held WHERE item_id < 0")
    engine.submit(db, "task-gone", tenant="t3")
    by_index(plans_of(claim))
    held = conn.execute("SELECT count(*) FROM agentos.lease_held").fetchone()
    assert held == (4,), "each of these claims took its item"
