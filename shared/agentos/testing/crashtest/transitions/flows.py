"""Flow control and cron: what people set, and what the calendar makes."""

import json
from datetime import UTC, datetime, timedelta

from agentos.store.calls import cron, flow
from agentos.store.calls.cron import CronRow
from agentos.store.connect import Database
from agentos.store.errors import TaskExists, UnknownCron
from agentos.testing.crashtest.transition import KIND, Stage, Transition

NEXT = datetime(2100, 1, 1, tzinfo=UTC)


def _limits(stage: Stage) -> list[tuple[str, int]]:
    return [(row.measure, row.most) for row in stage.run(flow.list_limits()) if row.name == stage.name]


def _limited(stage: Stage) -> None:
    stage.run(flow.set_limit("queue", stage.name, "concurrency", 3))


def _paused(stage: Stage) -> bool:
    return any(row.paused_at is not None for row in stage.run(flow.list_queues()) if row.queue == stage.name)


def _weight(stage: Stage) -> tuple[object, ...]:
    return stage.see("SELECT w.weight FROM agentos.fair_weights w WHERE w.fairness_key = $1::text", stage.name)


LIMITS = (
    Transition(
        "set_limit", "a limit",
        lambda stage, db: db.run(flow.set_limit("queue", stage.name, "concurrency", 3)), _limits, [("concurrency", 3)],
    ),
    Transition(
        "clear_limit", "a limit that is taken away",
        lambda stage, db: db.run(flow.clear_limit("queue", stage.name, "concurrency")), _limits, [], arrange=_limited,
    ),
    Transition(
        "set_depth", "how much a queue takes", lambda stage, db: db.run(flow.set_depth(stage.name, 9)), _limits,
        [("depth", 9)],
    ),
    Transition(
        "set_weight", "a tenant's turns", lambda stage, db: db.run(flow.set_weight(stage.name, 2.0)), _weight, (2.0,),
    ),
    Transition(
        "pause_queue", "a queue stands still", lambda stage, db: db.run(flow.pause_queue(stage.name)), _paused, True,
    ),
    Transition(
        "resume_queue", "a queue goes on", lambda stage, db: db.run(flow.resume_queue(stage.name)), _paused, False,
        arrange=lambda stage: stage.run(flow.pause_queue(stage.name)),
    ),
)  # fmt: skip


def _declare(stage: Stage, db: Database) -> None:
    entry = {
        "name": stage.name, "expression": "0 0 * * *", "timezone": "UTC", "misfire": "skip", "misfire_max": 1,
        "kind": KIND, "queue": stage.name, "version": 0, "payload": {}, "tells_time": False, "priority": 0,
        "max_attempts": 5, "timeout_s": None, "deadline_s": 60, "budget": None, "next_at": stage.kept["due"],
    }  # fmt: skip
    db.run(cron.declare_cron(json.dumps([entry])))


def _due(stage: Stage) -> None:
    """It is to be declared with a time that has come."""
    (now,) = stage.see("SELECT agentos.clock()")
    stage.kept["due"] = (now - timedelta(minutes=1)).replace(microsecond=0).isoformat()


def _declared(stage: Stage) -> None:
    _due(stage)
    _declare(stage, stage.db)
    stage.kept["entry"] = _entry(stage)


def _declared_paused(stage: Stage) -> None:
    _declared(stage)
    stage.run(cron.pause_cron(stage.name))


def _entry(stage: Stage) -> CronRow | None:
    return next((row for row in stage.run(cron.list_cron()) if row.name == stage.name), None)


def _is_there(stage: Stage) -> bool:
    return _entry(stage) is not None


def _stands(stage: Stage) -> bool:
    entry = _entry(stage)
    return entry is not None and entry.paused


def _fire(stage: Stage, db: Database) -> None:
    """As a coordinator does that has read the entry: who comes second finds its time past."""
    entry: CronRow = stage.kept["entry"]
    db.run(cron.fire_cron(entry, [entry.next_at], 0, NEXT))


def _made(stage: Stage) -> tuple[int, bool]:
    """Tasks with their deadline, and whether the entry has moved on."""
    (made,) = stage.see(
        "SELECT count(*) FROM agentos.task_records r JOIN agentos.deadlines USING (task_id) WHERE r.queue = $1::text",
        stage.name,
    )
    entry = _entry(stage)
    return int(made), entry is not None and entry.next_at == NEXT


CRON = (
    Transition("declare_cron", "an app says what it fires", _declare, _is_there, True, arrange=_due),
    Transition("fire_cron", "a time that has come becomes a task", _fire, _made, (1, True), arrange=_declared),
    Transition(
        "run_cron", "an entry is fired by hand",
        lambda stage, db: db.run(cron.run_cron(stage.name, stage.task_id)), _made, (1, False), arrange=_declared,
        refused=(TaskExists,),
    ),
    Transition(
        "pause_cron", "an entry stands still", lambda stage, db: db.run(cron.pause_cron(stage.name)), _stands, True,
        arrange=_declared,
    ),
    Transition(
        "resume_cron", "an entry goes on", lambda stage, db: db.run(cron.resume_cron(stage.name, NEXT)), _stands, False,
        arrange=_declared_paused,
    ),
    Transition(
        "remove_cron", "an entry is forgotten", lambda stage, db: db.run(cron.remove_cron(stage.name)), _is_there,
        False, arrange=_declared, refused=(UnknownCron,),
    ),
)  # fmt: skip

TRANSITIONS = (*LIMITS, *CRON)
