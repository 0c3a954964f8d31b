"""The baselines of `make bench`: they do what they are counted for, and statistics that lie do not make them slower."""

from typing import Any

import psycopg
import pytest
from bench.raw import PLANS, STATEMENTS, drain, fill, on_loop
from tests.store.test_plans import unbounded

from bench import layout

QUEUES = {"lease": ("lease_ready", "lease_held", "work_items"), "status": ("status_queue",)}
ARGUMENTS = ("1, 200", "1, '{1,2}', '{}', '{}'")
MANY, HELD = 5000, 1000
LIE = "UPDATE pg_class SET reltuples = {}, relpages = {} WHERE relnamespace = 'raw'::regnamespace AND relkind = 'r'"
LIES = {
    "never analyzed": LIE.format(-1, 0),
    "honest": "ANALYZE raw.lease_ready, raw.lease_held, raw.work_items, raw.status_queue",
    "empty": LIE.format(0, 40),
    "a few in many pages": LIE.format(1, 400),
    "many": LIE.format(1_000_000, 20_000),
}


@pytest.fixture
def raw_layout(conn: psycopg.Connection[Any], database_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schema `raw` in the test's database, with many rows in all of its places."""
    monkeypatch.setenv("AGENTOS_DSN", database_dsn)
    layout.make(conn)
    for loop, (claim, _) in STATEMENTS.items():
        on_loop(lambda raw, loop=loop: fill(raw, loop, MANY))  # type: ignore[misc]
        on_loop(lambda raw, claim=claim: raw.fetch(claim, 7, HELD))  # type: ignore[misc]


@pytest.mark.usefixtures("raw_layout")
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
@pytest.mark.parametrize("loop", STATEMENTS)
def test_a_loop_reads_only_what_a_key_bounds(conn: psycopg.Connection[Any], loop: str, lie: str) -> None:
    conn.execute(lie.encode())
    for name, value in PLANS.items():
        conn.execute("SELECT set_config(%s, %s, false)", (name, value))
    for n, (text, arguments) in enumerate(zip(STATEMENTS[loop], ARGUMENTS, strict=True)):
        conn.execute(f"PREPARE statement_{n} AS {text}".encode())
        found = conn.execute(f"EXPLAIN (FORMAT JSON) EXECUTE statement_{n}({arguments})".encode()).fetchall()
        walked = [node for table in QUEUES[loop] for node in unbounded(found[0][0], table)]
        ready = [node for node in walked if node.get("Index Name") == "status_queue_item_id_idx"]
        assert walked == ready, "the index of what is ready is all of that"


@pytest.mark.usefixtures("raw_layout")
@pytest.mark.parametrize("loop", STATEMENTS)
def test_a_loop_completes_all_that_is_ready_with_its_own_results(conn: psycopg.Connection[Any], loop: str) -> None:
    assert on_loop(lambda raw: drain(raw, loop, 200)) == MANY - HELD
    done = {
        "lease": "SELECT count(*), count(DISTINCT item_id), count(DISTINCT token) FROM raw.outcomes"
                 " WHERE status = 'completed' AND result::text = 'null' AND attempt = 1",
        "status": "SELECT count(*), count(DISTINCT item_id), count(DISTINCT token) FROM raw.status_queue"
                  " WHERE status = 'completed' AND result::text = 'null' AND attempt = 1",
    }  # fmt: skip
    assert conn.execute(done[loop].encode()).fetchone() == (MANY - HELD,) * 3


@pytest.mark.usefixtures("raw_layout")
def test_a_loop_is_fenced_by_pairs(conn: psycopg.Connection[Any]) -> None:
    found = conn.execute("SELECT item_id, token FROM raw.lease_held ORDER BY item_id LIMIT 2").fetchall()
    items, tokens = [item for item, _ in found], [token for _, token in found]
    for worker, given in ((8, tokens), (7, tokens[::-1])):
        on_loop(lambda raw, w=worker, t=given: raw.fetch(layout.COMPLETE, w, items, t, ["1", "2"]))  # type: ignore[misc]
    assert conn.execute("SELECT count(*) FROM raw.lease_held").fetchone() == (HELD,)
    on_loop(lambda raw: raw.fetch(layout.COMPLETE, 7, items, tokens, ["1", "2"]))
    assert conn.execute("SELECT item_id, result::text FROM raw.outcomes ORDER BY 1").fetchall() == [
        (items[0], "1"), (items[1], "2"),
    ]  # fmt: skip
