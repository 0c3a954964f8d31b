"""Child tasks and added items: whose they are and how urgent, over both drivers."""

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import flow, items, waits


def lane_and_priority(conn: psycopg.Connection[object], task_id: str) -> set[object]:
    """Tenant and priority of each of its items."""
    rows = conn.execute(
        "SELECT l.fairness_key, round((agentos.rank_of(r.created_at, 0) - w.rank) / 6e7)::integer"
        " FROM agentos.work_items w JOIN agentos.lanes l USING (lane) JOIN agentos.task_records r USING (task_id)"
        " WHERE task_id = %s",
        (task_id,),
    ).fetchall()
    return set(rows)


@pytest.mark.parametrize("asked", [None, 0, 3])
@pytest.mark.parametrize("own", [0, 7, -2])
def test_a_child_is_of_its_parents_tenant_and_as_urgent_unless_it_is_said(
    runner: Driver, conn: psycopg.Connection[object], own: int, asked: int | None
) -> None:
    engine.submit(runner, tenant="acme", priority=own)
    worker = engine.register(runner)
    acme = [each.lane for each in runner.run(flow.served_lanes(["default"], ["shell"], [0])).lanes]
    (held,) = runner.run(items.claim(worker.worker_id, 0, acme, 1)).items
    child = runner.run(
        waits.spawn(
            engine.tool_call(tool_name="@spawn"), worker.fence(held), child="task-child", title="t", queue="default",
            priority=asked, items='[{"key": "main", "kind": "shell", "payload": {}}]',
        )
    )  # fmt: skip
    assert lane_and_priority(conn, child) == {("acme", own if asked is None else asked)}


def test_added_items_are_of_the_same_tenant_unless_they_say_theirs(
    runner: Driver, conn: psycopg.Connection[object]
) -> None:
    engine.submit(runner, tenant="acme", priority=5)
    worker = engine.register(runner)
    lanes = [each.lane for each in runner.run(flow.served_lanes(["default"], ["shell"], [0])).lanes]
    (held,) = runner.run(items.claim(worker.worker_id, 0, lanes, 1)).items
    added = '[{"key": "a", "kind": "shell"}, {"key": "b", "kind": "shell", "tenant": "other"}]'
    assert runner.run(items.expand(worker.fence(held), added)) == 2
    assert lane_and_priority(conn, "task-1") == {("acme", 5), ("other", 5)}
