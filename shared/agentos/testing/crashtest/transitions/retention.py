"""What retention does, a step each."""

from datetime import UTC, datetime, timedelta
from random import SystemRandom

from agentos.store.calls import items, retention
from agentos.store.connect import Database
from agentos.store.errors import PartitionRefused
from agentos.testing.crashtest.transition import Stage, Transition

_LONG_AGO = datetime(1981, 1, 1, tzinfo=UTC)
MANY = 10_000


def _ended(stage: Stage) -> None:
    """Its task ended forty days ago."""
    (item,) = stage.hold()
    stage.run(items.complete(stage.worker_id, [(item.item_id, item.token, "1")]))
    stage.damage(
        "UPDATE agentos.task_records SET created_at = created_at - interval '40 days' WHERE task_id = %s", stage.task_id
    )
    stage.damage(
        "UPDATE agentos.outcomes SET kept = true, finished_at = finished_at - interval '40 days' WHERE item_id = %s",
        item.item_id,
    )
    stage.kept["before"] = stage.run(retention.database_time()) - timedelta(days=30)


def _retire(stage: Stage, db: Database) -> None:
    db.run(retention.retire_slice(None, None, stage.kept["before"], ("tasks",), MANY))


def _retired(stage: Stage) -> None:
    _ended(stage)
    _retire(stage, stage.db)


def _cleared(stage: Stage) -> None:
    _retired(stage)
    stage.run(retention.clear_retired(MANY, MANY))
    stage.kept["before"] += timedelta(days=31)


def _left(stage: Stage) -> tuple[object, ...]:
    """What there is of its task: record, item, outcome; and of the word that it was retired."""
    return stage.see(
        "SELECT (SELECT count(*) FROM agentos.task_records r WHERE r.task_id = $1),"
        " (SELECT count(*) FROM agentos.work_items w WHERE w.task_id = $1),"
        " (SELECT count(*) FROM agentos.outcomes o WHERE o.item_id = $2),"
        " (SELECT k.cleared FROM agentos.retired_tasks k WHERE k.task_id = $1)",
        stage.task_id, stage.held[0].item_id,
    )  # fmt: skip


def _old_day(stage: Stage, parent: str) -> str:
    """A partition of a day long ago. Returns its name."""
    day = _LONG_AGO + timedelta(days=SystemRandom().randrange(7000))
    stage.kept["day"] = day + timedelta(hours=12)
    stage.kept["name"] = stage.make_day(parent, day)
    return str(stage.kept["name"])


def _old_outcome(stage: Stage) -> None:
    """Its task is there, and its outcome in an old partition."""
    _ended(stage)
    _old_day(stage, "outcomes")
    stage.damage(
        "UPDATE agentos.outcomes SET kept = false, finished_at = %s WHERE item_id = %s",
        stage.kept["day"], stage.held[0].item_id,
    )  # fmt: skip


def _old_event(stage: Stage) -> None:
    """Its task is open, and an event of it in an old partition."""
    stage.submit()
    _old_day(stage, "events")
    stage.damage(
        "INSERT INTO agentos.events (task_id, at, event, data) VALUES (%s, %s, 'told', '{}')",
        stage.task_id, stage.kept["day"],
    )  # fmt: skip


def _kept(stage: Stage) -> tuple[object, ...]:
    """Where its old outcome and its old event are, each once."""
    return stage.see(
        "SELECT (SELECT array_agg(o.kept) FROM agentos.outcomes o JOIN agentos.work_items w USING (item_id)"
        " WHERE w.task_id = $1), (SELECT array_agg(e.kept) FROM agentos.events e WHERE e.task_id = $1 AND e.at = $2)",
        stage.task_id, stage.kept["day"],
    )  # fmt: skip


def _partition(stage: Stage) -> tuple[object, ...]:
    """Whether its partition is there, and sealed."""
    return stage.see(
        "SELECT to_regclass('agentos.' || $1) IS NOT NULL, EXISTS (SELECT 1 FROM pg_trigger t"
        " WHERE t.tgname = 'sealed' AND t.tgrelid = to_regclass('agentos.' || $1))", stage.kept["name"],
    )  # fmt: skip


def _sealed(stage: Stage) -> None:
    stage.run(retention.seal_partition(_old_day(stage, "outcomes")))


def _blocked(stage: Stage) -> tuple[object, ...]:
    return stage.see("SELECT (SELECT r.blocked ->> $1::text FROM agentos.retention_rounds r)", stage.name)


TRANSITIONS = (
    Transition(
        "retire_slice", "tasks that ended long ago are retired", _retire, _left, (1, 1, 1, False), arrange=_ended,
    ),
    Transition(
        "clear_retired", "the rows of retired tasks go",
        lambda _, db: db.run(retention.clear_retired(MANY, MANY)), _left, (0, 0, 0, True), arrange=_retired,
    ),
    Transition(
        "forget_retired", "that tasks were retired is forgotten",
        lambda stage, db: db.run(retention.forget_retired(stage.kept["before"], None, MANY)), _left, (0, 0, 0, None),
        arrange=_cleared,
    ),
    Transition(
        "keep_outcomes", "outcomes of what lives leave a partition that is to go",
        lambda stage, db: db.run(retention.keep_outcomes(stage.kept["name"], 0, MANY)), _kept, ([True], None),
        arrange=_old_outcome,
    ),
    Transition(
        "keep_events", "events of what lives leave a partition that is to go",
        lambda stage, db: db.run(retention.keep_events(stage.kept["name"], "", MANY)), _kept, (None, [True]),
        arrange=_old_event,
    ),
    Transition(
        "seal_partition", "a partition is sealed, before it goes",
        lambda stage, db: db.run(retention.seal_partition(stage.kept["name"])), _partition, (True, True),
        arrange=lambda stage: _old_day(stage, "outcomes"),
    ),
    Transition(
        "drop_partition", "a partition goes", lambda stage, db: db.run(retention.drop_partition(stage.kept["name"])),
        _partition, (False, False), arrange=_sealed, refused=(PartitionRefused,),
    ),
    Transition(
        "note_retention", "a round leaves word of itself",
        lambda stage, db: db.run(retention.note_retention(done=True, blocked={stage.name: "it is read"})), _blocked,
        ("it is read",),
    ),
)  # fmt: skip
