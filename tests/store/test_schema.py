"""The engine lives in the schema that AGENTOS_SCHEMA names, beside another pool in the same database."""

import pytest

from agentos.core.app import App
from agentos.store.connect import Database, connect
from agentos.store.errors import ConfigInvalid, SchemaMissing
from agentos.store.migrate import check_schema, engine_sql, migrate, migrations
from agentos.store.schema import in_schema, schema


def test_two_pools_share_a_database_and_see_nothing_of_each_other(
    database_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    App(dsn=database_dsn).submit("shell", {"command": "true"}, task_id="first")
    monkeypatch.setenv("AGENTOS_SCHEMA", "second_pool")
    with connect(database_dsn) as conn:
        with pytest.raises(SchemaMissing, match="no second_pool schema"):
            check_schema(conn)
        migrate(conn)
        check_schema(conn)
    Database._shared.clear()
    App(dsn=database_dsn).submit("shell", {"command": "true"}, task_id="second")
    with connect(database_dsn) as conn:
        assert conn.execute("SELECT task_id FROM agentos.tasks").fetchall() == [("first",)]
        assert conn.execute("SELECT task_id FROM second_pool.tasks").fetchall() == [("second",)]


def test_no_statement_of_the_engine_names_the_default_schema_under_another_name(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOS_SCHEMA", "elsewhere")
    with connect(empty_database) as conn:
        migrate(conn)
        assert conn.execute("SELECT to_regnamespace('agentos')").fetchone() == (None,)
        bodies = conn.execute(
            "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'elsewhere'::regnamespace"
        ).fetchall()
    assert len(bodies) > 50
    assert [name for name, body in bodies if "agentos." in body] == []


@pytest.mark.parametrize("name", ["Agentos", "a b", "pg_agentos", "1st", "x" * 41, 'a"; DROP'])
def test_a_name_that_would_need_quotes_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_SCHEMA", name)
    with pytest.raises(ConfigInvalid, match="AGENTOS_SCHEMA"):
        schema()


def test_messages_keep_their_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_SCHEMA", "mine")
    assert in_schema("SELECT agentos.clock(), 'agentos needs'") == "SELECT mine.clock(), 'agentos needs'"
    assert in_schema("pg_notify('agentos_wake', q)") == "pg_notify('mine_wake', q)"
    assert in_schema("'agentos'::regnamespace") == "'mine'::regnamespace"


def test_by_default_every_text_is_the_text_that_was_written() -> None:
    assert in_schema("SELECT agentos.clock()") == "SELECT agentos.clock()"
    assert "agentos." in engine_sql()
    assert "agentos." in migrations()[0].sql
