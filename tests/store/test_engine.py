"""What a migration touches of the functions that are there: processes of the version before go on with them."""

from typing import Any

import psycopg
import pytest

from agentos.store import migrate as migrating
from agentos.store.engine import in_place, parts, record
from agentos.store.migrate import check_schema, engine_sql, migrate

FUNCTIONS = "SELECT proname::text, oid, xmin FROM pg_proc WHERE pronamespace = 'agentos'::regnamespace"
CLOCK = "CREATE FUNCTION agentos.clock() RETURNS timestamptz"


def functions(conn: psycopg.Connection[Any]) -> dict[str, tuple[int, str]]:
    """Name to oid and the transaction that last wrote it."""
    return {name: (oid, xmin) for name, oid, xmin in conn.execute(FUNCTIONS).fetchall()}


def upgrade(conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, sql: str) -> None:
    """`agentos migrate` of a version whose functions are these."""
    monkeypatch.setattr(migrating, "engine_sql", lambda: sql)
    assert migrate(conn).functions
    check_schema(conn)


def changed(old: str, new: str) -> str:
    real = engine_sql()
    assert old in real
    return real.replace(old, new, 1)


def test_every_statement_is_a_part_but_the_drop() -> None:
    first, found = parts(engine_sql())
    assert first.lstrip().startswith("--")
    assert "DROP FUNCTION" in first
    assert first + "".join(part.text for part in found).strip() != ""
    assert sum(part.text.count("\nCREATE ") for part in found) == 0
    assert len({part.signature for part in found}) == len(found) > 200


def test_a_body_that_changed_is_replaced_in_place_and_nothing_else_is_touched(
    conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = functions(conn)
    sql = changed("    SELECT clock_timestamp()\n", "    SELECT '1 s'::interval + clock_timestamp()\n")
    upgrade(conn, monkeypatch, sql)
    after = functions(conn)
    assert [name for name in after if after[name] != before[name]] == ["clock"]
    assert after["clock"][0] == before["clock"][0]
    assert conn.execute("SELECT agentos.clock() > clock_timestamp() + interval '0.5 s'").fetchone() == (True,)


def test_a_new_function_is_made_and_one_that_is_no_more_stays_for_those_who_call_it(
    conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_one = engine_sql() + "\nCREATE FUNCTION agentos.one() RETURNS integer LANGUAGE sql AS $$ SELECT 1 $$;\n"
    upgrade(conn, monkeypatch, with_one)
    upgrade(conn, monkeypatch, with_one.replace("agentos.one()", "agentos.two()"))
    assert conn.execute("SELECT agentos.one() + agentos.two()").fetchone() == (2,)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "CREATE TYPE agentos.lane_floor AS (lane integer,",
            "CREATE TYPE agentos.lane_floor AS (more text, lane integer,",
        ),
        (CLOCK, "CREATE FUNCTION agentos.clock(p_unused text DEFAULT '') RETURNS timestamptz"),
    ],
    ids=["a row type", "arguments"],
)
def test_what_cannot_be_replaced_has_everything_made_again(
    conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    before = {oid for oid, _ in functions(conn).values()}
    upgrade(conn, monkeypatch, changed(old, new))
    assert not before & {oid for oid, _ in functions(conn).values()}


def test_what_stayed_is_not_in_the_way_of_a_later_version() -> None:
    _, (one, *_) = parts("CREATE FUNCTION agentos.f(a integer) RETURNS integer LANGUAGE sql AS $$ SELECT 1 $$;\n")
    _, (other, *_) = parts("CREATE FUNCTION agentos.f(a integer) RETURNS text LANGUAGE sql AS $$ SELECT '' $$;\n")
    left = {one.signature: [one.name, one.digest]}
    assert in_place(left, [other]) is None
    assert one.signature in record([other], left)
