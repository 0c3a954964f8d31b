"""Calls that are written once and sent without a cursor: they say and refuse what the same calls do with one."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from tests.pgbouncer import pgbouncer, through

from agentos.store import pooler
from agentos.store.calls import tasks, workers
from agentos.store.connect import Database, connect
from agentos.store.direct import Form, Sent, form_of
from agentos.store.errors import DatabaseUnavailable, InvalidValue, TaskExists
from agentos.store.migrate import migrate

SUBMIT = form_of(tasks.submit("", "noop", "ein Titel: ü", "{}", timeout_s=2.5, priority=-3), tasks.SUBMIT_BLANKS)
WAKE: Sent = (workers.wake_one("").sql, [b"heard"])


@pytest.fixture(params=["direct", "pgbouncer"])
def db(request: pytest.FixtureRequest, database_dsn: str) -> Iterator[Database]:
    """The test's database, or the same by way of a PgBouncer."""
    if request.param == "direct":
        found = Database(database_dsn)
        yield found
        found.close()
        return
    with pgbouncer(database_dsn) as address:
        found = Database(through(address, database_dsn))
        yield found
        found.close()
    pooler.forget()


def form() -> Form:
    assert SUBMIT is not None
    return SUBMIT


def test_another_schema_has_a_statement_of_its_own(database_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was prepared for the schema before would go on writing there."""
    with connect(database_dsn) as conn:
        one = Database(database_dsn, max_size=1)
        one.put(form(), ("first", "{}"))
        monkeypatch.setenv("AGENTOS_SCHEMA", "second_pool")
        migrate(conn)
        one.put(form(), ("second", "{}"))
        assert conn.execute("SELECT task_id FROM agentos.task_records").fetchall() == [("first",)]
        assert conn.execute("SELECT task_id FROM second_pool.task_records").fetchall() == [("second",)]
        one.close()


def test_many_are_written_of_an_array_of_ids_and_one_of_payloads(db: Database) -> None:
    many = form_of(tasks.submit_array("noop", "ein Titel: ü", priority=-3), tasks.SUBMIT_BLANKS)
    assert many is not None
    db.put(many, ("{many-1,many-2}", '[{"text":"ü 🙂"},{"text":"]"}]'))
    found = {task.task_id: (task.title, task.payload) for task in db.run(tasks.list_tasks())}
    assert found == {"many-1": ("ein Titel: ü", {"text": "ü 🙂"}), "many-2": ("ein Titel: ü", {"text": "]"})}


def test_it_writes_what_the_call_writes(db: Database) -> None:
    for n in range(3):
        db.put(form(), (f"task-{n}", '{"text":"ü 🙂"}'))
    db.run(tasks.submit("cursor", "noop", "ein Titel: ü", '{"text":"ü 🙂"}', timeout_s=2.5, priority=-3))
    found = {task.task_id: (task.title, task.kind, task.payload) for task in db.run(tasks.list_tasks())}
    assert found == dict.fromkeys(("task-0", "task-1", "task-2", "cursor"), ("ein Titel: ü", "noop", {"text": "ü 🙂"}))
    rows = [db.run(tasks.task_items(task_id))[0] for task_id in found]
    assert {(row.place, row.max_attempts, row.queue) for row in rows} == {("ready", 5, "default")}


def test_the_call_behind_it_is_a_transaction_of_its_own(db: Database, conn: psycopg.Connection[Any]) -> None:
    """The task stays though what follows fails; what follows happens though the task is refused."""
    db.put(form(), ("task-1", "{}"), ("SELECT 1 / $1::integer", [b"0"]))
    conn.execute("LISTEN agentos_wake")
    db.put(form(), ("task-2", "{}"), WAKE)
    assert [notice.payload for notice in conn.notifies(timeout=60, stop_after=1)] == ["heard"]
    db.put(form(), ("task-3", "{}"))
    assert {task.task_id for task in db.run(tasks.list_tasks())} == {"task-1", "task-2", "task-3"}


def test_more_than_a_socket_takes_at_once_goes_out(db: Database) -> None:
    payload = '{"x":"' + "y" * 4_000_000 + '"}'
    db.put(form(), ("task-1", payload), WAKE)
    (found,) = db.run(tasks.list_tasks())
    assert len(found.payload["x"]) == 4_000_000


def test_a_refusal_is_the_same_and_the_connection_goes_on(db: Database) -> None:
    db.put(form(), ("task-1", "{}"))
    with pytest.raises(TaskExists, match="task-1") as caught:
        db.put(form(), ("task-1", "{}"))
    assert caught.value.hint
    with pytest.raises(InvalidValue):
        db.put(form(), ("task-2", "{no json"))
    db.put(form(), ("task-2", "{}"))


@pytest.mark.parametrize("task_id", ["a\0b", "a\ud800b"])
def test_a_text_that_cannot_be_sent_whole_is_refused_and_not_cut_off(db: Database, task_id: str) -> None:
    with pytest.raises(InvalidValue):
        db.put(form(), (task_id, "{}"))
    assert db.run(tasks.list_tasks()) == ()


@pytest.mark.parametrize("kind", ["a\0b", "a\ud800b"])
def test_what_only_a_cursor_can_judge_is_left_to_one(kind: str) -> None:
    assert form_of(tasks.submit("", kind, kind, "{}"), tasks.SUBMIT_BLANKS) is None


def test_statements_that_the_server_forgot_are_prepared_again(database_dsn: str) -> None:
    db = Database(database_dsn, max_size=1)
    db.put(form(), ("task-1", "{}"))
    with db.connection() as conn:
        conn.execute("DEALLOCATE ALL")
    db.put(form(), ("task-2", "{}"))
    db.put(form(), ("task-3", "{}"))
    assert len(db.run(tasks.list_tasks())) == 3
    db.close()


def test_so_are_both_of_two(database_dsn: str, conn: psycopg.Connection[Any]) -> None:
    conn.execute("LISTEN agentos_wake")
    db = Database(database_dsn, max_size=1)
    for n in range(3):
        db.put(form(), (f"task-{n}", "{}"), WAKE)
        assert [notice.payload for notice in conn.notifies(timeout=60, stop_after=1)] == ["heard"]
        with db.connection() as own:
            own.execute("DEALLOCATE ALL")
    assert len(db.run(tasks.list_tasks())) == 3
    db.close()


def test_a_refusal_wakes_all_the_same_and_the_connection_goes_on(
    database_dsn: str, conn: psycopg.Connection[Any]
) -> None:
    conn.execute("LISTEN agentos_wake")
    db = Database(database_dsn, max_size=1)
    db.put(form(), ("task-1", "{}"))
    with pytest.raises(TaskExists, match="task-1"):
        db.put(form(), ("task-1", "{}"), WAKE)
    assert [notice.payload for notice in conn.notifies(timeout=60, stop_after=1)] == ["heard"]
    db.put(form(), ("task-2", "{}"), WAKE)
    db.close()


@pytest.mark.parametrize("behind", [None, WAKE])
def test_a_connection_that_was_ended_is_an_outage_and_the_next_call_has_another(
    database_dsn: str, conn: psycopg.Connection[Any], behind: Sent | None
) -> None:
    db = Database(database_dsn, max_size=1)
    db.put(form(), ("task-1", "{}"))
    conn.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                 " AND datname = current_database() AND backend_type = 'client backend'")  # fmt: skip
    with pytest.raises(DatabaseUnavailable):
        db.put(form(), ("task-2", "{}"), behind)
    db.put(form(), ("task-2", "{}"), behind)
    db.close()
