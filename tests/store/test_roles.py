"""Least privilege: the five roles, exactly what each may call, and what everybody is told who may not."""

import secrets
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql
from tests.store import engine

from agentos.store import roles
from agentos.store.calls import coordinator, items, tasks, timeline, workers
from agentos.store.calls.workers import schema_version
from agentos.store.connect import Database, connect, open_target
from agentos.store.errors import AgentOSError, ConfigInvalid, MissingPrivilege
from agentos.store.grants import DUTIES, SQL, fix_of, granted
from agentos.store.migrate import check_schema, migrate
from agentos.store.settings import load_settings

Conn = psycopg.Connection[Any]

MATRIX = """
SELECT p.proname::text, coalesce(array_agg(d.duty ORDER BY d.n) FILTER (
           WHERE has_function_privilege(%(prefix)s || d.duty, p.oid, 'EXECUTE')), '{}')
  FROM pg_proc p CROSS JOIN unnest(%(duties)s::text[]) WITH ORDINALITY AS d(duty, n)
 WHERE p.pronamespace = 'agentos'::regnamespace GROUP BY 1 ORDER BY 1"""


@pytest.fixture
def prefix(conn: Conn) -> Iterator[str]:
    """Roles are of the whole server: those of one test have a prefix of their own, and go with it."""
    made = f"t{secrets.token_hex(4)}_"
    yield made
    conn.execute("RESET ROLE")
    for duty in ("login", "owner", *DUTIES):
        for text in ("DROP OWNED BY {} CASCADE", "DROP ROLE {}"):
            if conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (made + duty,)).fetchone():
                if text.startswith("DROP OWNED") and duty == "owner":
                    conn.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(sql.Identifier(made + duty)))
                conn.execute(sql.SQL(text).format(sql.Identifier(made + duty)))


@pytest.fixture
def with_roles(conn: Conn, prefix: str) -> str:
    """The prefix, once the roles are there."""
    assert migrate(conn, role_prefix=prefix).roles == tuple(prefix + each for each in ("owner", *DUTIES))
    return prefix


def login(conn: Conn, dsn: str, prefix: str, *duties: str) -> str:
    """The DSN of a login that is granted these duties, and nothing else."""
    name = f"{prefix}login"
    conn.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(name)))
    for duty in duties:
        conn.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(prefix + duty), sql.Identifier(name)))
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(netloc=f"{name}:x@{parts.netloc.rpartition('@')[2]}"))


def test_each_role_may_call_exactly_what_is_on_record(conn: Conn, with_roles: str) -> None:
    """Somebody who adds a function adds its line."""
    found = {
        name: tuple(allowed)
        for name, allowed in conn.execute(MATRIX, {"prefix": with_roles, "duties": list(DUTIES)}).fetchall()
    }
    missing, gone = sorted(found.keys() - granted().keys()), sorted(granted().keys() - found.keys())
    assert not missing, f"who may call {missing}? Add a line for each to {SQL / 'grants.txt'} (`name: -` for nobody)"
    assert not gone, f"{SQL / 'grants.txt'} names functions that are not there (any more): {gone}"
    assert found == granted()


def test_what_a_role_may_call_is_pinned_and_the_rest_is_nobodys(conn: Conn, with_roles: str) -> None:
    rows = conn.execute(
        "SELECT proname::text, prosecdef, coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false),"
        " pg_get_userbyid(proowner)::text, has_function_privilege('public', oid, 'EXECUTE')"
        " FROM pg_proc WHERE pronamespace = 'agentos'::regnamespace"
    ).fetchall()
    assert {row[3:] for row in rows} == {(f"{with_roles}owner", False)}
    assert {name: (definer, pinned) for name, definer, pinned, *_ in rows} == {
        name: (bool(duties), bool(duties)) for name, duties in granted().items()
    }


def test_no_role_but_the_reader_has_a_right_on_a_table(conn: Conn, with_roles: str) -> None:
    rights = conn.execute(
        "SELECT d.duty, array_agg(DISTINCT p) FROM unnest(%s::text[]) AS d(duty) CROSS JOIN pg_class c"
        " CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS p"
        " WHERE c.relnamespace = 'agentos'::regnamespace AND c.relkind IN ('r', 'p', 'v')"
        " AND has_table_privilege(%s || d.duty, c.oid, p) GROUP BY 1",
        (list(DUTIES), with_roles),
    ).fetchall()
    assert rights == [("reader", ["SELECT"])]
    owners = "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'agentos'::regnamespace"
    assert conn.execute(owners + " AND relkind <> 'i'").fetchall() == [(f"{with_roles}owner",)]
    assert conn.execute(
        "SELECT count(*) FROM pg_roles WHERE rolname LIKE %s AND rolcanlogin", (f"{with_roles}%",)
    ).fetchone() == (0,)


def test_everybody_can_see_that_the_schema_is_this_versions(conn: Conn, database_dsn: str, with_roles: str) -> None:
    dsn = login(conn, database_dsn, with_roles)
    with connect(dsn) as mine, pytest.raises(MissingPrivilege):
        check_schema(mine)
    for duty in DUTIES:
        names = [sql.Identifier(name) for name in (with_roles + duty, f"{with_roles}login")]
        conn.execute(sql.SQL("GRANT {} TO {}").format(*names))
        db = Database(open_target(load_settings(dsn=dsn)).dsn)
        assert db.run(schema_version()) > 0
        db.close()
        conn.execute(
            sql.SQL("REVOKE {} FROM {}").format(*map(sql.Identifier, (with_roles + duty, f"{with_roles}login")))
        )


@pytest.mark.parametrize("duty", DUTIES)
def test_no_role_can_shift_the_clock(conn: Conn, database_dsn: str, with_roles: str, duty: str) -> None:
    """Neither for all, nor for its own session: a worker that could would take what others hold."""
    with connect(login(conn, database_dsn, with_roles, duty)) as mine:
        mine.execute("SELECT set_config('agentos.clock_offset', '1 h', false)")
        row = mine.execute("SELECT abs(extract(epoch FROM agentos.clock() - clock_timestamp()))").fetchone()
        assert row is not None
        assert row[0] < 60
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            mine.execute(
                "CREATE OR REPLACE FUNCTION agentos.clock() RETURNS timestamptz LANGUAGE sql AS 'SELECT now()'"
            )


REFUSED = (
    ("worker", tasks.submit("t", "shell", "t", "{}"), "agentos_submitter"),
    ("worker", workers.reclaim(), "agentos_coordinator"),
    ("submitter", items.claim(1, 0, [1], 1), "agentos_worker"),
    ("submitter", coordinator.next_due_s(), "agentos_coordinator or agentos_reader"),
    ("coordinator", tasks.cancel_task("t"), "agentos_submitter or agentos_worker"),
    ("coordinator", timeline.findings(60), "agentos_submitter or agentos_reader"),
    ("reader", tasks.submit("t", "shell", "t", "{}"), "agentos_submitter"),
)


def test_who_may_not_is_told_whose_role_may(conn: Conn, database_dsn: str, with_roles: str) -> None:
    db = Database(login(conn, database_dsn, with_roles))
    for duty, call, fix in REFUSED:
        names = [sql.Identifier(name) for name in (with_roles + duty, f"{with_roles}login")]
        conn.execute(sql.SQL("GRANT {} TO {}").format(*names))
        with pytest.raises(MissingPrivilege, match="permission denied for function") as told:
            db.run(call)
        assert f"GRANT {fix} TO" in (told.value.hint or "")
        conn.execute(sql.SQL("REVOKE {} FROM {}").format(*names))
    db.close()


def test_a_worker_reads_and_writes_no_table_beside_its_functions(
    conn: Conn, database_dsn: str, with_roles: str
) -> None:
    tables = [row[0] for row in conn.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'agentos'::regnamespace AND relkind IN ('r', 'p', 'v')"
    )]  # fmt: skip
    assert len(tables) > 20
    with connect(login(conn, database_dsn, with_roles, "worker", "submitter", "coordinator")) as mine:
        for name in tables:
            for text in ("SELECT FROM agentos.{}", "DELETE FROM agentos.{}"):
                with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectNotInPrerequisiteState)):
                    mine.execute(sql.SQL(text).format(sql.Identifier(name)))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            mine.execute("CREATE TABLE agentos.mine ()")


def test_an_operator_of_the_caller_is_not_used(conn: Conn, database_dsn: str, with_roles: str) -> None:
    """The caller's search_path does not reach a function that runs with the owner's rights."""
    conn.execute(sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(sql.Identifier(f"{with_roles}submitter")))
    with connect(login(conn, database_dsn, with_roles, "submitter")) as mine:
        mine.execute(
            "CREATE FUNCTION public.evil(integer, bigint) RETURNS bigint LANGUAGE plpgsql"
            " AS $$ BEGIN RAISE EXCEPTION 'as %', current_user; END $$"
        )
        mine.execute("CREATE OPERATOR public.* (LEFTARG = integer, RIGHTARG = bigint, FUNCTION = public.evil)")
        mine.execute("SET search_path = public, pg_catalog")
        assert mine.execute("SELECT agentos.submit('t', 'shell', 't', '{}', 'default', 1, 5, NULL, 0, 0)").fetchone()
    conn.execute("SET search_path = public, pg_catalog")
    with pytest.raises(psycopg.errors.RaiseException, match="as "):  # it is the pin that keeps it out
        conn.execute("SELECT agentos.rank_of(clock_timestamp(), 1)")
    conn.execute("DROP OPERATOR public.* (integer, bigint); DROP FUNCTION public.evil(integer, bigint)")


def test_saying_it_again_changes_nothing_and_a_later_migrate_keeps_the_roles(
    conn: Conn, database_dsn: str, with_roles: str
) -> None:
    before = conn.execute(MATRIX, {"prefix": with_roles, "duties": list(DUTIES)}).fetchall()
    migrate(conn, role_prefix=with_roles)
    assert conn.execute(MATRIX, {"prefix": with_roles, "duties": list(DUTIES)}).fetchall() == before
    conn.execute("UPDATE agentos.engine SET digest = 'of another version'")
    with connect(login(conn, database_dsn, with_roles, "owner")) as mine:  # no superuser, and not the owner itself
        assert migrate(mine).functions
    assert conn.execute(MATRIX, {"prefix": with_roles, "duties": list(DUTIES)}).fetchall() == before
    assert roles.prefix_of(conn) == with_roles


def test_without_the_roles_nothing_is_different(conn: Conn) -> None:
    assert roles.prefix_of(conn) is None
    assert conn.execute(
        "SELECT DISTINCT prosecdef, has_function_privilege('public', oid, 'EXECUTE') FROM pg_proc"
        " WHERE pronamespace = 'agentos'::regnamespace"
    ).fetchall() == [(False, True)]


def test_another_schema_has_roles_of_its_own(
    empty_database: str, prefix: str, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOS_SCHEMA", "second_pool")
    with connect(empty_database) as there:
        migrate(there, role_prefix=prefix)
        assert roles.prefix_of(there) == prefix
        db = Database(login(there, empty_database, prefix, "submitter", "reader"))
        engine.submit(db)
        assert engine.status(db) == "created"
        with pytest.raises(MissingPrivilege):
            db.run(workers.reclaim())
        db.close()
        for duty in ("login", "owner", *DUTIES):
            there.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(sql.Identifier(prefix + duty)))
            there.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(prefix + duty)))


@pytest.mark.parametrize("bad", ["Upper_", "pg_", "x y", "", "9_", "a" * 60])
def test_a_prefix_that_cannot_be_is_refused(conn: Conn, bad: str) -> None:
    with pytest.raises(ConfigInvalid, match="role prefix"):
        migrate(conn, role_prefix=bad)


def test_a_role_that_may_create_none_is_told(conn: Conn, database_dsn: str, prefix: str) -> None:
    with connect(login(conn, database_dsn, prefix)) as mine, pytest.raises(AgentOSError) as told:
        migrate(mine, role_prefix=prefix)
    assert isinstance(told.value, MissingPrivilege)


def test_functions_that_only_others_call_are_the_owners() -> None:
    assert fix_of("permission denied for function take") == (
        "only the schema's owner may; use a login that is granted that role"
    )
    assert "migrate --help" in fix_of("permission denied for table tasks")


def test_a_worker_that_traces_says_where_its_child_tasks_belong(conn: Conn, database_dsn: str, with_roles: str) -> None:
    """`ctx.spawn` in a traced attempt keeps the trace in the statement that makes the child."""
    with psycopg.connect(login(conn, database_dsn, with_roles, "worker")) as worker:
        worker.execute("SELECT agentos.set_trace(ARRAY['child'], 'a parent', NULL)")
    assert conn.execute("SELECT task_id FROM agentos.traces").fetchall() == [("child",)]
