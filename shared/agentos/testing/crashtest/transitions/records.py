"""Records that are forgotten: model outputs, parts of large values, a task's content."""

from hashlib import sha256
from uuid import uuid4, uuid5

from agentos.store.calls import blobs, cache, checkpoints, items, purge
from agentos.store.calls.cache import PromptIdentity
from agentos.store.calls.checkpoints import NewCheckpoint
from agentos.testing.crashtest.transition import Stage, Transition


def _with_output(stage: Stage) -> None:
    (item,) = stage.hold()
    fence, call_token = item.fence(stage.worker_id), uuid4()
    prompt = PromptIdentity(stage.name, stage.task_id, "plan", "m", "0" * 64, "tea")
    stage.run(cache.cache_begin(prompt, fence, stage.worker_id, 3600, call_token=call_token))
    stage.run(cache.cache_finish(prompt, call_token, fence, stage.worker_id, '"tea"'))


def _outputs(stage: Stage) -> tuple[object, ...]:
    return stage.see("SELECT count(*) FROM agentos.llm_cache c WHERE c.cache_key = $1::text", stage.name)


def _with_part(stage: Stage) -> None:
    """A snapshot whose large part is this stage's alone."""
    (item,) = stage.hold()
    body = f'"{stage.name}"'.encode()
    name = stage.kept["part"] = sha256(body).hexdigest()
    new = NewCheckpoint(
        task_id=stage.task_id, item_id=item.item_id, checkpoint_type="iteration_end", snapshot='{"$parts":{}}',
        snapshot_sha256=name, evidence="[]", ordinal=1, host="", workspace="", step_id=uuid5(item.token, "step"),
    )  # fmt: skip
    stage.run(checkpoints.commit_parted(new, item.fence(stage.worker_id), stage.worker_id, [name], {name: body}))


def _with_orphan(stage: Stage) -> None:
    _with_part(stage)
    stage.run(blobs.drop_blobs(stage.task_id))


def _part(stage: Stage) -> tuple[object, ...]:
    """Whether the part is there, who refers to it, and whether nobody does any more."""
    return stage.see(
        "SELECT count(*), count(r.task_id), count(b.orphaned_at) FROM agentos.blobs b"
        " LEFT JOIN agentos.blob_refs r USING (sha256) WHERE b.sha256 = $1::text", stage.kept["part"],
    )  # fmt: skip


def _ended(stage: Stage) -> None:
    (item,) = stage.hold()
    stage.run(items.complete(stage.worker_id, [(item.item_id, item.token, '"secret"')]))


def _content(stage: Stage) -> tuple[object, ...]:
    """Whether its payload and its result are there, and whether it is marked as purged."""
    return stage.see(
        "SELECT w.payload::text <> 'null', o.result IS NOT NULL, h.purged_at IS NOT NULL FROM agentos.work_items w"
        " JOIN agentos.outcomes o USING (item_id) LEFT JOIN agentos.task_heads h ON h.task_id = w.task_id"
        " WHERE w.task_id = $1::text", stage.task_id,
    )  # fmt: skip


TRANSITIONS = (
    Transition(
        "cache_invalidate", "an output that is forgotten",
        lambda stage, db: db.run(cache.cache_invalidate(stage.name)), _outputs, (0,), arrange=_with_output,
    ),
    Transition(
        "drop_blobs", "a task's references to parts", lambda stage, db: db.run(blobs.drop_blobs(stage.task_id)), _part,
        (1, 0, 1), arrange=_with_part,
    ),
    Transition(
        "collect_blobs", "parts that nobody refers to", lambda stage, db: db.run(blobs.collect_blobs(0.0)), _part,
        (0, 0, 0), arrange=_with_orphan,
    ),
    Transition(
        "purge", "a task's content is taken away", lambda stage, db: db.run(purge.purge_task(stage.task_id, "me")),
        _content, (False, False, True), arrange=_ended, calls=("purge_task",),
    ),
)  # fmt: skip
