"""What the coordinator does beside its sweeps: it leads, repairs, counts, makes partitions."""

from uuid import uuid4

from agentos.store.calls import coordinator, items, statistics, stuck, waits, workers
from agentos.store.calls.coordinator import Slice
from agentos.store.calls.ledger import CallIdentity
from agentos.store.run import Call
from agentos.testing.crashtest.transition import Stage, Transition

TTL_S = 3600.0
FIRST = [("ready", 1, 0, 0)]


def _miscounted(stage: Stage) -> None:
    """Its only item has ended, its head says that one is open: it would never end."""
    stage.submit()
    stage.register()
    (item,) = stage.run(items.claim(stage.worker_id, 0, stage.lanes, 1)).items
    stage.run(items.expand(item.fence(stage.worker_id), "[]"))
    stage.run(items.complete(stage.worker_id, [(item.item_id, item.token, "1")]))
    stage.damage(
        "UPDATE agentos.task_heads SET open_items = 1, status = NULL, finished_at = NULL WHERE task_id = %s",
        stage.task_id,
    )


def _head(stage: Stage) -> tuple[object, ...]:
    return stage.see("SELECT h.open_items, h.status FROM agentos.task_heads h WHERE h.task_id = $1", stage.task_id)


def _deaf(stage: Stage) -> None:
    """Parked for a signal that is there."""
    (item,) = stage.hold()
    fence = item.fence(stage.worker_id)
    call = CallIdentity(f"{stage.name}-wait", stage.task_id, item.item_id, "@signal", None, 0, 1, "{}")
    stage.run(waits.wait(call, fence, name="go"))
    stage.damage(
        "INSERT INTO agentos.signals (signal_id, task_id, name, payload, sent_at) VALUES (%s, %s, 'go', '1', now())",
        uuid4(), stage.task_id,
    )  # fmt: skip


def _leads(stage: Stage) -> tuple[object, ...]:
    """Who, in which term, and whether still."""
    return stage.see(
        "SELECT l.holder = $2::bigint, l.term, l.expires_at > agentos.clock() FROM agentos.leaders l"
        " WHERE l.name = $1::text", stage.name, stage.worker_id,
    )  # fmt: skip


def _lead(stage: Stage) -> None:
    stage.run(_leading(stage))


def _leading(stage: Stage) -> Call[int | None]:
    """The call by which it takes or keeps the lead."""
    return workers.lead(stage.name, stage.worker_id, TTL_S)


def _without_a_day(stage: Stage) -> None:
    """Nobody made the last day's partitions."""
    stage.run(workers.ensure_partitions())
    (day,) = stage.see("SELECT to_char(agentos.clock() AT TIME ZONE 'UTC' + interval '7 days', 'YYYYMMDD')")
    for parent in ("outcomes", "events"):
        stage.drop_table(f"{parent}_{day}")


def _days(stage: Stage) -> list[int]:
    return sorted(stage.run(statistics.partitions_ahead()).values())


def _counts(stage: Stage) -> tuple[object, ...]:
    """How many since the stage was arranged."""
    return stage.see("SELECT count(*) FROM agentos.statistics_runs r WHERE r.at > $1::timestamptz", stage.kept["from"])


def _noted(stage: Stage) -> None:
    """A first look has found that nobody runs its task; the next one tells."""
    stage.submit()
    stage.run(stuck.look_for_stuck(TTL_S, TTL_S))


def _told(stage: Stage) -> tuple[object, ...]:
    """How often it was told that nobody runs its task."""
    return stage.see(
        "SELECT count(*) FROM agentos.events e WHERE e.task_id = $1::text AND e.event = 'stuck'", stage.task_id
    )


def _long_ago(stage: Stage) -> None:
    stage.damage("DELETE FROM agentos.statistics_runs")
    (stage.kept["from"],) = stage.see("SELECT agentos.clock()")


TRANSITIONS = (
    Transition(
        "repair", "a task that a restore left open", lambda stage, db: db.run(workers.repair()), _head,
        (0, "completed"), arrange=_miscounted,
    ),
    Transition(
        "repair_slice", "the same, slice by slice", lambda stage, db: db.run(coordinator.repair_slice(Slice())), _head,
        (0, "completed"), arrange=_miscounted,
    ),
    Transition(
        "repair_waits", "a wait that a restore left beside its signal",
        lambda stage, db: db.run(waits.repair_waits()), Stage.places, FIRST, arrange=_deaf,
    ),
    Transition(
        "lead", "a coordinator takes the lead", lambda stage, db: db.run(_leading(stage)), _leads,
        (True, 1, True),
    ),
    Transition(
        "resign", "a coordinator gives the lead up",
        lambda stage, db: db.run(workers.resign(stage.name, stage.worker_id)), _leads, (True, 1, False), arrange=_lead,
    ),
    Transition(
        "ensure_partitions", "the partitions of the next days", lambda stage, db: db.run(workers.ensure_partitions()),
        _days, [7, 7], arrange=_without_a_day,
    ),
    Transition(
        "look_for_stuck", "what stands still is told of",
        lambda stage, db: db.run(stuck.look_for_stuck(TTL_S, 0.0)), _told, (1,), arrange=_noted,
    ),
    Transition(
        "take_statistics", "a count of depth, age and throughput",
        lambda stage, db: db.run(statistics.take_statistics(TTL_S)), _counts, (1,), arrange=_long_ago,
    ),
)  # fmt: skip
