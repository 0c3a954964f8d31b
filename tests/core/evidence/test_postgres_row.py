"""DB_ROW in Postgres: shown true for every kind of column, and failing for everything that evidence may not name."""

import contextlib
import dataclasses
import time
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool
from tests.core.evidence.worlds import INJECTIONS

from agentos.core.evidence import Evidence, LocalWorld, Verdict, check
from agentos.store.errors import DatabaseUnavailable


def row(world: LocalWorld, table: str, where: dict[str, Any], values: dict[str, Any] | None = None) -> Verdict:
    return check(Evidence("db_row", "", {"table": table, "where": where, "values": values or {}}), world)


def order(world: LocalWorld, where: dict[str, Any], values: dict[str, Any] | None = None) -> Verdict:
    return row(world, "orders", where, values)


@pytest.fixture
def world(database_world: LocalWorld) -> LocalWorld:
    return database_world


def test_the_status_of_a_task_as_in_the_quick_reference(world: LocalWorld) -> None:
    assert row(world, "tasks", {"task_id": "task-123"}, {"status": "completed"}).holds
    assert row(world, "agentos.tasks", {"task_id": "task-123"}, {"status": "completed"}).holds
    verdict = row(world, "tasks", {"task_id": "task-124"}, {"status": "completed"})
    assert verdict.reason == 'the row in tasks where task_id = "task-124" has not status = "completed"'
    assert "no row" in row(world, "tasks", {"task_id": "task-125"}, {"status": "completed"}).reason


def test_a_users_own_tasks_table_needs_its_schema(world: LocalWorld) -> None:
    assert row(world, "public.tasks", {"task_id": "task-123"}, {"status": "mine"}).holds
    assert not row(world, "tasks", {"task_id": "task-123"}, {"status": "mine"}).holds


@pytest.mark.parametrize("table", ["orders", "public.orders"])
def test_a_row_that_is_there(world: LocalWorld, table: str) -> None:
    assert row(world, table, {"id": 1}).holds
    assert row(world, table, {"id": 1, "name": "first"}, {"flag": True, "code": "abc"}).holds


@pytest.mark.parametrize(
    ("values", "others"),
    [
        ({"name": "first"}, {"name": "second"}), ({"code": "abc"}, {"code": "abcd"}), ({"flag": True}, {"flag": False}),
        ({"price": 9.9}, {"price": 9.901}), ({"price": "9.90"}, {"price": 10}), ({"ratio": 0.5}, {"ratio": 0.25}),
        ({"made": "2026-01-01T01:00:00+01:00"}, {"made": "2026-01-01T01:00:00"}),
        ({"made": "2026-01-01"}, {"made": "not a date"}), ({"body": {"a": [1, 2]}}, {"body": {"a": [2, 1]}}),
        ({"raw": {"b": 1.0}}, {"raw": [1]}), ({"mood": "fine"}, {"mood": "angry"}), ({"mail": "a@b"}, {"mail": "ab"}),
        ({"fixed": "ab"}, {"fixed": "abcd"}), ({"day": "2026-01-02"}, {"day": None}),
        ({'Odd "name%s': 7}, {'Odd "name%s': 8}),
    ],
)  # fmt: skip
def test_values_are_compared_as_the_type_of_their_column(
    world: LocalWorld, values: dict[str, Any], others: dict[str, Any]
) -> None:
    assert order(world, {"id": 1}, values).holds
    assert order(world, values | {"id": 1}).holds
    assert not order(world, {"id": 1}, others).holds
    assert not order(world, others | {"id": 1}).holds


def test_null_is_null_and_json_null_is_not(world: LocalWorld) -> None:
    assert order(world, {"id": 2}, {"name": None}).holds
    assert not order(world, {"id": 1}, {"name": None}).holds
    assert not order(world, {"id": 2}, {"name": "None"}).holds
    assert order(world, {"id": 2}, {"body": "text"}).holds
    assert not order(world, {"id": 9007199254740993}, {"body": None}).holds


def test_large_integers_are_exact(world: LocalWorld) -> None:
    assert order(world, {"id": 9007199254740993}).holds
    assert not order(world, {"id": 9007199254740992}).holds
    assert "out of range" in order(world, {"id": 10**30}).reason


def test_one_of_several_rows_that_has_the_values_is_enough(world: LocalWorld) -> None:
    assert order(world, {"name": "twin"}, {"code": "one"}).holds
    assert order(world, {"name": "twin"}, {"code": "two"}).holds
    assert not order(world, {"name": "twin"}, {"code": "one", "id": 5}).holds


def test_the_reason_does_not_tell_what_the_table_holds(world: LocalWorld) -> None:
    assert "abc" not in order(world, {"id": 1}, {"code": "zzz"}).reason


def test_the_search_path_of_the_session_finds_tables_and_partitions(world: LocalWorld) -> None:
    assert row(world, "carts", {"id": 3}).holds
    assert row(world, "shop.carts_low", {"id": 3}).holds
    assert not row(world, "public.carts", {"id": 3}).holds


def test_names_that_need_quoting(world: LocalWorld) -> None:
    assert row(world, 'we%ird "table', {"id": 1}).holds
    assert not row(world, 'we%ird "table', {"id": 2}).holds


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("absent", "there is no table absent in public, shop"), ("absent.orders", "there is no table"),
        ("order_view", "is a view"), ("order_copy", "is a materialized view"), ("counter", "is a sequence"),
        ("orders_pkey", "is a special relation"), ("remote", "is a foreign table"),
        ("mixed", "has a foreign table as a part"),
        ("mood", "there is no table"), ("pg_catalog.pg_authid", "system table"), ("pg_shadow", "system table"),
        ("pg_class", "system table"), ("information_schema.tables", "system table"),
        ("pg_toast.x", "there is no table"),
        ("agentos.task_heads", "of agentos itself"), ("task_heads", "there is no table"),
        ("long_name_" + "x" * 54, "there is no table"), ("evidence.public.orders", "there is no table"),
    ],
)  # fmt: skip
def test_tables_that_evidence_may_not_name(world: LocalWorld, table: str, reason: str) -> None:
    verdict = row(world, table, {"id": 1})
    assert not verdict.holds
    assert reason in verdict.reason


@pytest.mark.parametrize("name", INJECTIONS)
def test_no_name_is_ever_anything_but_a_name(world: LocalWorld, database: psycopg.Connection[Any], name: str) -> None:
    for verdict in (row(world, name, {"id": 1}), order(world, {name: 1}), order(world, {"id": 1}, {name: 1})):
        assert not verdict.holds
        assert "there is no table" in verdict.reason or "has no column" in verdict.reason
    assert database.execute("SELECT count(*) FROM public.orders").fetchone() == (5,)


@pytest.mark.parametrize("value", INJECTIONS)
def test_no_value_is_ever_anything_but_a_value(world: LocalWorld, value: str) -> None:
    assert not order(world, {"name": value}).holds
    assert not order(world, {"id": value}).holds
    assert not order(world, {"id": 1}, {"price": value, "mood": value}).holds


def test_a_value_full_of_sql_is_found_as_it_is(world: LocalWorld) -> None:
    assert order(world, {"name": "it's; DROP TABLE orders; --"}).holds


@pytest.mark.parametrize("column", ["ctid", "xmin", "tableoid", "oid", "gone", "........pg.dropped.16........", "*"])
def test_only_columns_of_the_table_can_be_named(world: LocalWorld, column: str) -> None:
    assert "has no column" in order(world, {column: "1"}).reason
    assert "has no column" in order(world, {"id": 1}, {column: None}).reason


def test_only_single_values_are_compared(world: LocalWorld) -> None:
    assert "only single values" in order(world, {"id": 1}, {"tags": ["x"]}).reason
    assert "only single values" in order(world, {"id": 1}, {"tags": None}).reason
    assert "cannot be [1]" in order(world, {"id": [1]}).reason
    assert 'cannot be {"a":1}' in order(world, {"id": 1}, {"name": {"a": 1}}).reason


def test_an_empty_where_is_false(world: LocalWorld) -> None:
    assert "where is empty" in order(world, {}, {"id": 1}).reason


def test_a_comparison_of_the_wrong_type_is_a_verdict(world: LocalWorld) -> None:
    assert "invalid input syntax" in order(world, {"id": "one"}).reason
    assert "invalid input syntax" in order(world, {"id": True}).reason


def test_operators_come_from_the_catalogue_whatever_the_search_path(world: LocalWorld) -> None:
    with world.connect() as connection:
        assert connection.execute("SELECT id = 77::bigint FROM orders WHERE id = 1::bigint LIMIT 1").fetchone() == (
            True,
        )
    assert not order(world, {"id": 77}).holds


def test_a_table_that_is_locked_is_given_up_after_two_seconds(world: LocalWorld, database_dsn: str) -> None:
    with psycopg.connect(database_dsn) as other:
        other.execute("LOCK TABLE public.orders IN ACCESS EXCLUSIVE MODE")
        start = time.monotonic()
        verdict = order(world, {"id": 1})
        assert time.monotonic() - start < 30  # it stays locked until after the verdict
    assert not verdict.holds
    assert "timeout" in verdict.reason
    assert order(world, {"id": 1}).holds


def test_a_missing_privilege_is_a_verdict(world: LocalWorld, database: psycopg.Connection[Any]) -> None:
    database.execute("CREATE ROLE evidence_nobody")
    try:
        database.execute("SET ROLE evidence_nobody")
        assert "permission denied" in order(world, {"id": 1}).reason
    finally:
        database.execute("RESET ROLE")
        database.execute("DROP ROLE evidence_nobody")


def test_the_check_writes_nothing_and_leaves_the_session_as_it_was(
    world: LocalWorld, database: psycopg.Connection[Any]
) -> None:
    shown = "SELECT current_setting('search_path'), current_setting('statement_timeout'), current_setting('TimeZone')"
    before = database.execute(shown).fetchone()
    assert order(world, {"id": 1}).holds
    assert not order(world, {"id": "x"}).holds
    assert database.execute(shown).fetchone() == before
    assert database.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert database.execute("CREATE TEMP TABLE still_writable (id integer)")


def test_it_works_with_a_pool_and_inside_a_callers_transaction(world: LocalWorld, database_dsn: str) -> None:
    with ConnectionPool(database_dsn, min_size=1, max_size=1) as pool:
        pooled = dataclasses.replace(world, connect=pool.connection)
        assert order(pooled, {"id": 1}).holds
        assert not order(pooled, {"id": 6}).holds
    with psycopg.connect(database_dsn) as connection:
        connection.execute("INSERT INTO orders (id) VALUES (6)")
        inside = dataclasses.replace(world, connect=lambda: contextlib.nullcontext(connection))
        assert order(inside, {"id": 6}).holds
        connection.execute("INSERT INTO orders (id) VALUES (7)")
        connection.rollback()


def test_a_database_that_does_not_answer_is_no_verdict(world: LocalWorld, database_dsn: str) -> None:
    with psycopg.connect(database_dsn, autocommit=True) as doomed, psycopg.connect(database_dsn) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [doomed.info.backend_pid])
        lost = dataclasses.replace(world, connect=lambda: contextlib.nullcontext(doomed))
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable):
                order(lost, {"id": 1})
    unreachable = dataclasses.replace(world, connect=lambda: psycopg.connect("host=127.0.0.1 port=1"))
    with pytest.raises(DatabaseUnavailable):
        order(unreachable, {"id": 1})
