"""Cron entries in the database: declared again and again, fired once whoever asks, paused, changed."""

import json
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.coordinator.cron import Firing, firing
from agentos.core.app import App, Budget
from agentos.core.app.cron import declare
from agentos.store.calls import cron, tasks, timeline, workers
from agentos.store.calls.cron import CronRow
from agentos.store.errors import ConfigInvalid, InvalidArguments, UnknownCron
from agentos.store.run import Flow, drive
from agentos.testing.clock import Clock


def run(db: engine.Runs, flow: Flow[int]) -> int:
    """A flow of calls only."""
    return drive(db, flow)


def app_with(expression: str = "0 * * * *", *, version: int = 0, **options: Any) -> App:
    app = App()

    @app.cron(expression, name="hourly", payload={"what": "x"}, **options)
    @app.task("report", version=version, deadline_s=600, budget=Budget(max_calls=3))
    def report(ctx: Any, what: str, scheduled_at: str) -> None:
        """Nothing runs it here."""

    return app


def declared(db: engine.Runs, app: App) -> CronRow:
    run(db, declare(tuple(app.cron_entries.values())))
    (entry,) = db.run(cron.list_cron())
    return entry


def fired(db: engine.Runs, entry: CronRow) -> tuple[Firing, tuple[str, ...] | None]:
    found = firing(entry)
    return found, db.run(cron.fire_cron(entry, found.instants, found.skipped, found.next_at))


def due(db: engine.Runs) -> CronRow:
    (entry,) = db.run(cron.list_cron(due=True))
    return entry


def to_the_next(clock: Clock, entry: CronRow, *, late_s: float = 1.0) -> None:
    clock.advance((entry.next_at - entry.now).total_seconds() + late_s)


def test_a_time_becomes_one_task_with_what_the_handler_declares(
    runner: Driver, conn: psycopg.Connection[Any], clock: Clock
) -> None:
    entry = declared(runner, app_with())
    assert runner.run(cron.list_cron(due=True)) == ()
    to_the_next(clock, entry)
    _, made = fired(runner, due(runner))
    assert made == (f"cron-hourly-{entry.next_at:%Y%m%dT%H%M%SZ}",)
    task = runner.run(tasks.get_task(made[0]))
    assert task is not None
    assert (task.kind, task.title) == ("report", "hourly")
    assert task.payload == {"what": "x", "scheduled_at": f"{entry.next_at:%Y-%m-%dT%H:%M:%SZ}"}
    assert conn.execute("SELECT max_calls FROM agentos.budgets").fetchone() == (3,)
    assert engine.count(conn, "deadlines") == 1
    (after,) = runner.run(cron.list_cron())
    assert (after.next_at - entry.next_at, after.last_task) == (timedelta(hours=1), made[0])


def test_of_two_who_fire_at_once_one_does_and_a_death_before_the_commit_fires_nothing(
    runner: Driver, conn: psycopg.Connection[Any], clock: Clock
) -> None:
    to_the_next(clock, declared(runner, app_with()))
    entry = due(runner)
    first, second = runner.session(), runner.session()
    first.begin()
    assert fired(first, entry)[1]
    assert fired(second, entry)[1] is None, "it does not wait"
    first.rollback()
    assert engine.count(conn, "work_items") == 0
    assert fired(second, entry)[1]
    assert fired(first, entry)[1] is None, "that time is past"
    assert engine.count(conn, "work_items") == 1


def test_a_task_that_is_there_already_is_not_made_again(runner: Driver, clock: Clock) -> None:
    entry = declared(runner, app_with())
    to_the_next(clock, entry)
    _, made = fired(runner, due(runner))
    runner.run(cron.remove_cron("hourly"))
    clock.advance(-1800)
    entry = declared(runner, app_with())  # the same time lies ahead once more
    to_the_next(clock, entry)
    assert fired(runner, due(runner))[1] == ()
    assert made is not None
    assert [task.task_id for task in runner.run(tasks.list_tasks())] == list(made)


@pytest.mark.parametrize(
    ("misfire", "options", "times", "skipped"), [("skip", {}, 0, 3), ("once", {}, 1, 2), ("all", {}, 3, 0),
                                                 ("all", {"misfire_max": 2}, 2, 1)],
)  # fmt: skip
def test_what_was_missed_is_as_the_entry_says(
    runner: Driver, clock: Clock, misfire: str, options: dict[str, Any], times: int, skipped: int
) -> None:
    entry = declared(runner, app_with(misfire=misfire, **options))
    to_the_next(clock, entry, late_s=2 * 3600 + 120)
    found, made = fired(runner, due(runner))
    last = entry.next_at + timedelta(hours=2)
    assert made is not None
    assert (len(made), found.skipped, found.next_at) == (times, skipped, last + timedelta(hours=1))
    assert list(found.instants[-1:]) == [last][:times]
    assert runner.run(cron.list_cron())[0].skipped == skipped


def test_a_time_within_the_minute_is_no_misfire(runner: Driver, clock: Clock) -> None:
    to_the_next(clock, declared(runner, app_with(misfire="skip")), late_s=50)
    assert len(fired(runner, due(runner))[1] or ()) == 1


def test_declared_again_it_keeps_its_next_time_and_another_schedule_counts_from_now(
    runner: Driver, clock: Clock
) -> None:
    first = declared(runner, app_with())
    clock.advance(2 * 3600)
    assert declared(runner, app_with()).next_at == first.next_at, "what was missed is not forgotten"
    changed = declared(runner, app_with("30 * * * *"))
    assert changed.next_at > changed.now
    assert changed.next_at.minute == 30
    stale = firing(first)
    assert runner.run(cron.fire_cron(first, stale.instants, 0, stale.next_at)) is None, "read before the change"
    declared(runner, app_with("45 * * * *", version=2))
    assert declared(runner, app_with("30 * * * *")).expression == "45 * * * *", (
        "an older handler version changes nothing"
    )


def test_paused_it_does_not_fire_and_resumed_it_makes_up_for_nothing(runner: Driver, clock: Clock) -> None:
    to_the_next(clock, declared(runner, app_with()))
    entry = due(runner)
    runner.run(cron.pause_cron("hourly"))
    assert runner.run(cron.list_cron(due=True)) == ()
    assert runner.run(cron.next_cron_s()) is None
    assert fired(runner, entry)[1] is None
    clock.advance(5 * 3600)
    (entry,) = runner.run(cron.list_cron())
    ahead: datetime = entry.now + timedelta(minutes=7)
    runner.run(cron.resume_cron("hourly", ahead))
    runner.run(cron.resume_cron("hourly", ahead - timedelta(days=1)))  # it is not paused: nothing changes
    assert runner.run(cron.list_cron())[0].next_at == ahead
    assert 410 < (runner.run(cron.next_cron_s()) or 0) < 421


def test_run_makes_one_now_and_names_that_do_not_exist_are_told(runner: Driver) -> None:
    before = declared(runner, app_with())
    runner.run(cron.pause_cron("hourly"))
    runner.run(cron.run_cron("hourly", "by-hand"))
    assert runner.run(tasks.get_task("by-hand"))
    assert runner.run(cron.list_cron())[0].next_at == before.next_at
    for call in (
        cron.pause_cron("no"),
        cron.remove_cron("no"),
        cron.run_cron("no", "t"),
        cron.resume_cron("no", before.now),
    ):
        with pytest.raises(UnknownCron, match="'no'"):
            runner.run(call)


def test_an_entry_that_no_living_app_declares_is_found(runner: Driver) -> None:
    declared(runner, app_with())

    def found() -> list[timeline.Finding]:
        return [each for each in runner.run(timeline.findings()) if each.finding == "cron_undeclared"]

    assert found() == [], "no worker lives: that is another finding"
    engine.register(runner)
    assert [each.data["name"] for each in found()] == ["hourly"]
    runner.run(
        workers.register_worker(
            7, label="w", host="h", pid=1, process="p", version="0", role="worker", ttl_s=15.0,
            serves=json.dumps({"queues": ["default"], "kinds": ["report"], "cron": ["hourly"]}),
        )
    )  # fmt: skip
    assert found() == []
    assert runner.run(cron.list_cron())[0].declared


def other(ctx: Any) -> None:
    """Registered nowhere."""


def test_what_cannot_be_declared_is_refused_at_the_decoration() -> None:
    app = app_with()
    for mistake in ({"misfire": "later"}, {"misfire": "all", "misfire_max": 0}, {"timezone": "Mars/Base"}):
        with pytest.raises(ConfigInvalid):
            app_with(**mistake)
    with pytest.raises(ConfigInvalid, match="already"):
        app.cron("0 9 * * *", name="hourly")(other)
    with pytest.raises(ConfigInvalid, match="cannot be the name"):
        app.cron("0 9 * * *", name="a/b")(other)
    assert "other" not in app.handlers, "what is refused registers nothing"
    with pytest.raises(InvalidArguments):
        app.cron("0 9 * * *", payload={"no": 1})(app.handlers["report"].function)

    @app.cron("0 9 * * *")
    def alone(ctx: Any) -> None:
        """A task of its own name."""

    assert app.cron_entries["alone"].handler is app.handlers["alone"]


def test_no_entries_are_no_call(runner: Driver) -> None:
    assert run(runner, declare(())) == 0
    assert runner.run(cron.declare_cron("[]")) == 0


def test_the_clock_is_the_databases(runner: Driver, clock: Clock) -> None:
    before = runner.run(cron.database_clock())
    clock.advance(1000)
    assert 990 < (runner.run(cron.database_clock()) - before).total_seconds() < 1100
