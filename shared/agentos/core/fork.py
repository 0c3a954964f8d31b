"""A task that begins at a checkpoint of another one: what goes along, what becomes of the calls after it, making it."""

import getpass
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from agentos.core.doubts import wake_task
from agentos.core.rewind import Becomes, Choices, RewoundCall, becomes, chosen, sealed_choices
from agentos.core.task_id import new_task_id
from agentos.store.calls.forks import ForkedCall, fork_calls, fork_task, require_forkable
from agentos.store.calls.rewind import rewind_scope
from agentos.store.canonical import canonical_text
from agentos.store.run import Flow, do


@dataclass(frozen=True, slots=True)
class Fork:
    """What a fork is, or (`done` False) would be. `task_id`: of the fork; `from_task`, `from_seq`: where it begins.
    `items`: ids of its items that are open, in a dry run of those of `from_task` that they are made of. `calls`: every
    recorded call of `from_task`, in order, and what becomes of it in the fork.
    """

    task_id: str
    from_task: str
    from_seq: int
    done: bool
    items: tuple[int, ...]
    calls: tuple[RewoundCall, ...]


def fork(
    task_id: str, from_seq: int, *, fork_id: str | None = None, dry_run: bool = False, replay: Collection[str] = (),
    re_execute: Collection[str] = (), stub: Mapping[str, Any] | None = None, new_outputs: bool = False,
    by: str | None = None,
) -> Flow[Fork]:  # fmt: skip
    """Make a task that begins at the checkpoint `from_seq` of another one (0: the beginning), which stays as it is.

    `fork_id`: its id, by which saying it again is refused; default a new one. By tool, of the calls after the
    checkpoint: `replay` (as for every tool that is not named), `re_execute`, `stub` {tool: result}. `new_outputs`:
    models are asked again, and paid. `by`: who wants it, default this user's name.
    Raises TaskExists, UnknownTask, UnknownCheckpoint, TaskPurged. TaskOpen: if a child task of before the checkpoint
    has not ended. InvalidInput: if a tool is named twice, or was not called after the checkpoint. InvalidValue,
    ValueTooLarge: if a stub cannot be stored. Nothing was made then.
    """
    made, calls = fork_id or new_task_id(), (yield from do(fork_calls(task_id, from_seq)))
    after = [each.call for each in calls if each.after]
    choices = chosen(after, from_seq, replay=replay, re_execute=re_execute, stub=stub or {})
    if dry_run:
        yield from do(require_forkable(task_id, from_seq))
        items = (yield from do(rewind_scope(task_id, from_seq))).items
    else:
        text = canonical_text(sealed_choices(choices), what="choices")
        items = yield from do(
            fork_task(task_id, from_seq, made, text, outputs=not new_outputs, by=by or getpass.getuser())
        )
        yield from wake_task(made)
    told = tuple(RewoundCall(each.call, _becomes(each, choices)) for each in calls)
    return Fork(made, task_id, from_seq, not dry_run, items, told)


def _becomes(each: ForkedCall, choices: Choices) -> Becomes:
    if each.call.tool_name.startswith("@") and each.call.state == "begun":
        return "waits_again"
    if not each.after:
        return "in_doubt" if each.call.state == "begun" else "carried_over"
    return "executed_again" if each.living else becomes(each.call, choices)
