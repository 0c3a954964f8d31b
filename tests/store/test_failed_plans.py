"""What on-call asks of failed and quarantined items is found by an index, however many outcomes there are."""

from typing import Any

import psycopg
import pytest
from tests.store.test_plans import Plans, plans_of, scans

from agentos.store.calls import timeline

__all__ = ["plans_of"]


@pytest.mark.unsound("its outcomes are of no item")
def test_doctor_walks_over_no_outcomes(conn: psycopg.Connection[Any], plans_of: Plans) -> None:
    conn.execute(
        "INSERT INTO agentos.outcomes (item_id, attempt, failures, crashes, status, finished_at)"
        " SELECT -n, 1, 0, 0, CASE n % 5000 WHEN 0 THEN 'failed' WHEN 1 THEN 'quarantined' ELSE 'completed' END,"
        " clock_timestamp() FROM generate_series(1, 30000) n"
    )
    conn.execute("ANALYZE agentos.outcomes")
    plans = plans_of(timeline.findings(60.0))
    (filled,) = conn.execute("SELECT DISTINCT tableoid::regclass::text FROM agentos.outcomes").fetchone() or ("",)
    read = scans(plans, filled.removeprefix("agentos."))
    assert {kind for kind, _ in read} == {"Index Scan"}, read
    assert any(str(index).endswith("status_finished_at_idx") for _, index in read)
