"""The life of a worker, and what it does with what it holds."""

import asyncio
from hashlib import sha256
from uuid import uuid5

from agentos.core.process import new_worker_id
from agentos.store.calls import checkpoints, coordinator, flow, items, ledger, tasks, workers
from agentos.store.calls.checkpoints import NewCheckpoint
from agentos.store.calls.items import ClaimedItem, Fence
from agentos.store.calls.ledger import CallIdentity
from agentos.store.connect import AsyncDatabase, Database
from agentos.store.errors import LeaseLost, TaskExists
from agentos.store.run import Call
from agentos.testing.crashtest.transition import KIND, Stage, Transition, registration

LEASE_S = 3600.0
READY = [("ready", 0, 0, 0)]
HELD = [("held", 1, 0, 0)]
WORKER = "SELECT w.state, w.claim_epoch, w.beat_at > w.started_at FROM agentos.workers w WHERE w.worker_id = $1::bigint"


def _worker(stage: Stage) -> tuple[object, ...]:
    return stage.see(WORKER, stage.worker_id)


def _fence(stage: Stage) -> Fence:
    return stage.held[0].fence(stage.worker_id)


def _pairs(stage: Stage) -> list[tuple[int, object]]:
    return [(item.item_id, item.token) for item in stage.held]


def _ready(stage: Stage) -> None:
    stage.submit()
    stage.register()


def _limited(stage: Stage) -> None:
    """Two are ready, and one may run."""
    stage.submit(2)
    stage.run(flow.set_limit("queue", stage.name, "concurrency", 1))
    stage.register()


def _held_by_anybody(stage: Stage) -> int:
    return sum(1 for task_id in stage.ids(2) for place, *_ in stage.places(task_id) if place == "held")


def _hold_and_stop(stage: Stage) -> None:
    """It is gone and was not declared dead; nobody has swept."""
    stage.hold()
    stage.run(workers.declare_dead([stage.worker_id]))


def _stopped(stage: Stage) -> None:
    stage.register()
    stage.run(workers.retire_worker(stage.worker_id, "stopped"))


def _without_session(stage: Stage) -> None:
    """One whose process beat, and has no session any more."""
    stage.register()
    stage.damage(
        "UPDATE agentos.workers SET sessions = name, sessions_since = agentos.sessions_since()"
        " FROM (SELECT %s::text AS name) n WHERE worker_id = %s", f"gone-{stage.name}", stage.worker_id,
    )  # fmt: skip
    stage.kept["gone"] = [each for each in stage.run(workers.gone_workers()) if each.worker_id == stage.worker_id]


def _own_kind(stage: Stage) -> None:
    """`claim_one` looks through every lane of its kinds: this one is the stage's alone."""
    stage.run(tasks.submit(stage.task_id, stage.name, "a crash test", "{}", queue=stage.name))
    stage.register()


def _with_own_end(stage: Stage) -> None:
    """A lease of a minute, of a worker that lives longer."""
    _own_kind(stage)
    stage.kept["held"] = (stage.run(items.claim_one(stage.worker_id, 0, [stage.name], 60)),)


def _lasts(stage: Stage) -> tuple[object, ...]:
    return stage.see(
        "SELECT h.expires_at > agentos.clock() + make_interval(secs => 600) FROM agentos.lease_held h"
        " JOIN agentos.work_items w USING (item_id) WHERE w.task_id = $1::text",
        stage.task_id,
    )


def _empty_task(stage: Stage) -> None:
    stage.run(tasks.create_task(stage.task_id, "a crash test", queue=stage.name))
    stage.register()


def _offers(stage: Stage) -> tuple[object, ...]:
    return stage.see(
        "SELECT (SELECT count(*) FROM agentos.offers o WHERE o.worker_id = w.worker_id), w.offering"
        " FROM agentos.workers w WHERE w.worker_id = $1::bigint", stage.worker_id,
    )  # fmt: skip


def _stands_by(stage: Stage) -> None:
    stage.register()
    stage.run(workers.offer(stage.worker_id, 0, stage.lanes, 1))
    stage.kept["says so"] = beside = stage.db.beside()  # a session that lasts
    beside.run(workers.stand_by(stage.worker_id, waits=True))


def _hand_over(stage: Stage, db: Database) -> None:
    submit = tasks.submit(stage.task_id, KIND, "a crash test", "{}", queue=stage.name)
    db.run(Call(tasks.HAND_OVER, submit.args, submit.read))


def _register(stage: Stage, db: Database) -> None:
    """A process that starts anew has another id."""
    db.run(registration(stage, stage.worker_id if db is not stage.db else new_worker_id()))


def _registered(stage: Stage) -> int:
    (found,) = stage.see("SELECT count(*) FROM agentos.workers w WHERE w.label = $1::text", stage.name)
    return min(int(found), 1)


def _write_batch(stage: Stage, db: Database) -> None:
    asyncio.run(_together(stage, db.dsn))


async def _together(stage: Stage, dsn: str) -> None:
    """As a worker does: while a step of one item is written, those of others wait, and share the next commit."""
    first, second, alone = stage.held
    shared = (_step(stage, first), _begin(stage, second))
    db = await AsyncDatabase.open(dsn, max_size=1)
    try:
        await asyncio.gather(*(db.run(call) for call in (_step(stage, alone), *shared)))
    finally:
        await db.close()


def _step(stage: Stage, item: ClaimedItem) -> Call[object]:
    new = NewCheckpoint(
        task_id=item.task_id, item_id=item.item_id, checkpoint_type="iteration_end", snapshot="1",
        snapshot_sha256=sha256(b"1").hexdigest(), evidence="[]", ordinal=1, host="", workspace="",
        step_id=uuid5(item.token, "step"),
    )  # fmt: skip
    return checkpoints.commit_checkpoint(new, item.fence(stage.worker_id))


def _begin(stage: Stage, item: ClaimedItem) -> Call[object]:
    call = CallIdentity(f"{stage.name}-call", item.task_id, item.item_id, "effect", None, 0, 1, "{}")
    return ledger.ledger_begin(
        call, item.fence(stage.worker_id), stage.worker_id, on_doubt="retry", produces="[]", expires_s=60,
        call_token=uuid5(item.token, "call"),
    )  # fmt: skip


def _written(stage: Stage) -> tuple[object, ...]:
    return stage.see(
        "SELECT (SELECT count(*) FROM agentos.checkpoints c WHERE c.task_id = $1::text),"
        " (SELECT count(*) FROM agentos.tool_ledger l WHERE l.task_id = $2::text)", *stage.ids(2),
    )  # fmt: skip


LIVES = (
    Transition("register_worker", "a worker begins to live", _register, _registered, 1),
    Transition(
        "beat", "a worker says that it lives", lambda stage, db: db.run(workers.beat(stage.worker_id, 0)), _worker,
        ("alive", 0, True), arrange=Stage.register,
    ),
    Transition(
        "retire_worker", "a worker says that it stops",
        lambda stage, db: db.run(workers.retire_worker(stage.worker_id, "stopped")), lambda stage: _worker(stage)[0],
        "stopped", arrange=Stage.register,
    ),
    Transition(
        "declare_dead", "a worker whose process is gone",
        lambda stage, db: db.run(workers.declare_dead([stage.worker_id])), lambda stage: _worker(stage)[0], "dead",
        arrange=Stage.register,
    ),
    Transition(
        "declare_gone", "a worker none of whose sessions is left",
        lambda stage, db: db.run(workers.declare_gone(stage.kept["gone"])), lambda stage: _worker(stage)[0], "dead",
        arrange=_without_session,
    ),
    Transition(
        "forget_workers", "rows of workers long gone", lambda stage, db: db.run(workers.forget_workers(0.0)), _worker,
        (), arrange=_stopped,
    ),
    Transition(
        "adopt", "what is held after a claim without a reply",
        lambda stage, db: db.run(workers.adopt(stage.worker_id)),
        lambda stage: (int(str(_worker(stage)[1])) > 0, stage.places()), (True, HELD), arrange=Stage.hold,
    ),
)  # fmt: skip

CLAIMS = (
    Transition(
        "offer", "the lanes from which a worker may be handed items",
        lambda stage, db: db.run(workers.offer(stage.worker_id, 0, stage.lanes, 1)), _offers, (1, True),
        arrange=Stage.register,
    ),
    Transition(
        "hand_over", "a submit that hands its item to a worker that waits", _hand_over, Stage.places, HELD,
        arrange=_stands_by, refused=(TaskExists,), calls=("submit",),
    ),
    Transition(
        "claim_task", "items of one task, by a runner",
        lambda stage, db: db.run(items.claim_task(stage.worker_id, 0, stage.task_id, 1)), Stage.places, HELD,
        arrange=_ready,
    ),
    Transition(
        "claim_one", "an item by hand, under a lease with an end",
        lambda stage, db: db.run(items.claim_one(stage.worker_id, 0, [stage.name], LEASE_S)), Stage.places, HELD,
        arrange=_own_kind,
    ),
    Transition(
        "claim_idle", "the claim of an idle worker",
        lambda stage, db: db.run(items.claim_idle(stage.worker_id, 0, stage.lanes, 1, [], 2**31 - 1)), Stage.places,
        HELD, arrange=_ready,
    ),
    Transition(
        "claim_limited", "a claim under a limit",
        lambda stage, db: db.run(items.claim_limited(stage.worker_id, 0, stage.lanes, 2)), _held_by_anybody, 1,
        arrange=_limited,
    ),
    Transition(
        "begin_run", "a runner's planning item",
        lambda stage, db: db.run(tasks.begin_run(stage.task_id, stage.worker_id)), Stage.places, READY,
        arrange=_empty_task,
    ),
)  # fmt: skip

ENDS = (
    Transition(
        "release", "an item is given back",
        lambda stage, db: db.run(items.release(stage.worker_id, _pairs(stage))), Stage.places,  # type: ignore[arg-type]
        [("ready", 1, 0, 0)], arrange=Stage.hold,
    ),
    Transition(
        "put_off", "an item whose content cannot be opened here",
        lambda stage, db: db.run(items.put_off(_fence(stage), LEASE_S, "{}")), Stage.places, [("scheduled", 1, 0, 0)],
        arrange=Stage.hold, refused=(LeaseLost,),
    ),
    Transition(
        "renew", "a lease with an end of its own goes on",
        lambda stage, db: db.run(items.renew(_fence(stage), LEASE_S)), _lasts, (True,), arrange=_with_own_end,
    ),
    Transition(
        "reclaim_blocked", "leases that sweeps had to skip",
        lambda stage, db: db.run(coordinator.reclaim_blocked([stage.held[0].item_id], 1.0)), Stage.places,
        [("ready", 1, 0, 1)], arrange=_hold_and_stop,
    ),
    Transition(
        "give_up", "a runner that has used up its iterations",
        lambda stage, db: db.run(tasks.give_up(stage.task_id, stage.worker_id, "enough")), Stage.places,
        [("failed", 0, 0, 0)], arrange=_ready,
    ),
    Transition(
        "write_batch", "writes of several items in one commit", _write_batch, _written, (1, 1),
        arrange=lambda stage: stage.hold(3),
    ),
)  # fmt: skip

TRANSITIONS = (*LIVES, *CLAIMS, *ENDS)
