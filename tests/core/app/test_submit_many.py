"""`App.submit` and `App.submit_many` on a connection of the caller's, and what is refused before anything is sent."""

from typing import Any

import psycopg
import pytest
from tests.store import engine

from agentos.core.app import App, SubmittedTask, TaskContext, bulk
from agentos.store.calls import tasks
from agentos.store.connect import Database
from agentos.store.errors import InvalidArguments, InvalidInput, InvalidValue, TaskExists


@pytest.fixture
def app(database_dsn: str) -> App:
    app = App()

    @app.task("double", max_attempts=2, timeout_s=3, queue="sums")
    async def double(ctx: TaskContext, n: int) -> int:
        return 2 * n

    return app


def test_each_payload_becomes_a_task_in_their_order(app: App, db: Database) -> None:
    handles = app.submit_many("double", ({"n": n} for n in range(3)), title="sums", priority=1)
    rows = [db.run(tasks.task_items(handle.task_id))[0] for handle in handles]
    assert [row.payload for row in rows] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert {(row.kind, row.queue, row.max_attempts, row.place) for row in rows} == {("double", "sums", 2, "ready")}
    assert sorted(handle.task_id for handle in handles) == [handle.task_id for handle in handles]
    assert handles[0].status() == "created"


def test_the_ids_are_the_callers_if_it_gives_them(app: App) -> None:
    assert [handle.task_id for handle in app.submit_many("double", [{"n": 1}, {"n": 2}], task_ids=["b", "a"])] == [
        "b",
        "a",
    ]


def test_more_than_one_message_is_still_all_or_none(
    app: App, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "BATCH", 2)
    app.submit("double", {"n": 0}, task_id="taken")
    with pytest.raises(TaskExists, match="taken"):
        app.submit_many("double", [{"n": n} for n in range(5)], task_ids=["a", "b", "c", "d", "taken"])
    assert engine.count(conn, "task_records") == 1
    assert len(app.submit_many("double", [{"n": n} for n in range(5)])) == 5
    assert engine.count(conn, "lease_ready") == 6


def test_large_payloads_are_sent_in_messages_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "BATCH_CHARACTERS", 10)
    batches = bulk._batches("abcde", ["x" * 4, "x" * 4, "x" * 4, "x" * 30, "x"], [""] * 5)
    assert ["".join(ids) for _, ids, _ in batches] == ["ab", "c", "d", "e"]


def test_no_payloads_are_no_tasks(app: App, conn: psycopg.Connection[Any]) -> None:
    assert app.submit_many("double", []) == []
    assert engine.count(conn, "lanes") == 0


@pytest.mark.parametrize(
    ("payloads", "options", "error"),
    [
        ([{"n": 1}, {"n": "many"}], {}, InvalidArguments),
        ([{"n": 1}, {"m": 1}], {}, InvalidArguments),
        ([{"n": 1}, {"n": 10**5000}], {}, InvalidValue),
        ([{"n": n} for n in range(5000)] + [{"n": 10**5000}], {}, InvalidValue),
        ([{"n": 1}], {"task_ids": ["a", "b"]}, InvalidInput),
        ([{"n": 1}], {"task_ids": "a"}, InvalidInput),
        ([{"n": 1}], {"task_ids": [""]}, InvalidInput),
        ([{"n": 1}], {"task_ids": ["x" * 256]}, InvalidInput),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_made(
    app: App, conn: psycopg.Connection[Any], payloads: list[Any], options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        app.submit_many("double", payloads, **options)
    assert engine.count(conn, "task_records") == 0


def test_a_kind_without_a_handler_is_refused(app: App) -> None:
    with pytest.raises(InvalidInput, match="triple"):
        app.submit_many("triple", [{"n": 1}])


def order(app: App, conn: psycopg.Connection[Any], *, fails: bool) -> list[SubmittedTask]:
    """A row of the caller's and three tasks, in one transaction."""
    with conn.transaction():
        conn.execute("INSERT INTO orders VALUES (1)")
        made = [app.submit("double", {"n": 1}, conn=conn), *app.submit_many("double", [{"n": 2}, {"n": 3}], conn=conn)]
        assert engine.count(conn, "lease_ready") == 3
        if fails:
            raise ZeroDivisionError
    return made


def test_tasks_are_made_with_the_callers_own_writes_or_not_at_all(app: App, database_dsn: str) -> None:
    with psycopg.connect(database_dsn, autocommit=True) as conn:
        conn.execute("CREATE TABLE orders (id integer)")
        with pytest.raises(ZeroDivisionError):
            order(app, conn, fails=True)
        assert engine.count(conn, "task_records") == 0
        handles = order(app, conn, fails=False)
        assert engine.count(conn, "task_records") == 3
    assert [handle.status() for handle in handles] == ["created"] * 3


def test_what_is_refused_leaves_the_callers_transaction_usable(app: App, database_dsn: str) -> None:
    app.submit("double", {"n": 1}, task_id="taken")
    with psycopg.connect(database_dsn) as conn:
        conn.execute("CREATE TABLE orders (id integer)")
        with pytest.raises(TaskExists):
            app.submit_many("double", [{"n": 1}, {"n": 2}], task_ids=["free", "taken"], conn=conn)
        conn.execute("INSERT INTO orders VALUES (1)")
        conn.commit()
        assert engine.count(conn, "task_records") == 1


def test_an_app_goes_on_after_its_pool_was_closed(app: App) -> None:
    app.submit("double", {"n": 1}).db.close()
    assert app.submit("double", {"n": 1}).status() == "created"
