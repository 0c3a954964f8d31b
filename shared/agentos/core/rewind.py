"""Going back to a checkpoint: which calls came after it, what becomes of each, and doing it."""

import getpass
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agentos.core.doubts import wake_task
from agentos.core.flows.results import pack
from agentos.store.calls.rewind import RecordedEffect, rewind_calls, rewind_scope, rewind_task
from agentos.store.canonical import canonical_text, loads
from agentos.store.errors import InvalidInput
from agentos.store.run import Flow, do
from agentos.store.sealed_items import seal_field

Becomes = Literal["carried_over", "replayed", "runs_again", "in_doubt", "executed_again", "stubbed", "waits_again"]
Choices = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class RewoundCall:
    """A call after the checkpoint and what becomes of it when the program makes it again: `replayed` from the record;
    `runs_again`, since it had failed; `in_doubt`, as its tool declares; `executed_again` under a new idempotency key;
    `stubbed`; `waits_again`: a wait that is not over, or that is to be waited for anew. Of a fork also `carried_over`:
    it came before the checkpoint, and its record goes along.
    """

    call: RecordedEffect
    becomes: Becomes


@dataclass(frozen=True, slots=True)
class Rewind:
    """What a rewind does, or (`done` False) would do. `items`: ids of those that are open again. `checkpoints`:
    sequence numbers of those it supersedes. `calls`: what was called after the checkpoint, in order.
    """

    task_id: str
    to: int
    done: bool
    items: tuple[int, ...]
    checkpoints: tuple[int, ...]
    calls: tuple[RewoundCall, ...]


def rewind(
    task_id: str, to: int, *, dry_run: bool = False, replay: Collection[str] = (), re_execute: Collection[str] = (),
    stub: Mapping[str, Any] | None = None, by: str | None = None,
) -> Flow[Rewind]:  # fmt: skip
    """Go back to the checkpoint with the sequence number `to` (0: the beginning); `dry_run` only tells.

    By tool: `replay` (as for every tool that is not named), `re_execute`, `stub` {tool: result}. `by`: who wants it,
    default this user's name.
    Raises TaskHeld: while an item of the task is held, not in a dry run. UnknownTask, UnknownCheckpoint.
    InvalidInput: if a tool is named twice, or was not called after the checkpoint. InvalidValue, ValueTooLarge: if a
    stub cannot be stored. Nothing was changed then.
    """
    calls = yield from do(rewind_calls(task_id, to))
    choices = chosen(calls, to, replay=replay, re_execute=re_execute, stub=stub or {})
    scope = yield from do(rewind_scope(task_id, to))
    items = scope.items
    if not dry_run:
        text = canonical_text(sealed_choices(choices), what="choices")
        items = yield from do(rewind_task(task_id, to, text, by or getpass.getuser()))
        yield from wake_task(task_id)
    told = tuple(RewoundCall(each, becomes(each, choices)) for each in calls)
    return Rewind(task_id, to, not dry_run, items, scope.checkpoints, told)


def chosen(
    after: Collection[RecordedEffect], seq: int, *, replay: Collection[str], re_execute: Collection[str],
    stub: Mapping[str, Any],
) -> Choices:  # fmt: skip
    """What is to become of the calls `after` the checkpoint `seq`, by tool. Raises InvalidInput, InvalidValue,
    ValueTooLarge.
    """
    _check([*replay, *re_execute, *stub], {each.tool_name for each in after}, seq)
    return {**{tool: {"action": "re_execute"} for tool in re_execute}, **_stubs(stub)}


def _stubs(stub: Mapping[str, Any]) -> Choices:
    found: Choices = {}
    for tool, result in stub.items():
        packed = pack(result)
        if packed.refusal is not None:
            raise packed.refusal
        if tool.startswith("@"):
            raise InvalidInput(f"{tool} is a wait, it has no stub", hint=f"replay it, or re_execute {tool}: wait again")
        found[tool] = {"action": "stub", "result": loads(packed.text), "exit_code": packed.exit_code}
    return found


def _check(named: list[str], called: set[str], to: int) -> None:
    for tool in named:
        if named.count(tool) > 1:
            raise InvalidInput(f"{tool} is named more than once", hint="one of replay, re-execute and stub for a tool")
        if tool not in called:
            raise InvalidInput(
                f"no call of {tool!r} is recorded after checkpoint {to}",
                hint=f"called were: {', '.join(sorted(called)) or 'none'}",
            )


def sealed_choices(choices: Choices) -> dict[str, Any]:
    """As they are sent: what stubs return is an output."""
    return {tool: seal_field(choice, "result") for tool, choice in choices.items()}


def becomes(call: RecordedEffect, choices: Choices) -> Becomes:
    """What becomes of a call after the checkpoint when the program makes it again."""
    action = choices.get(call.tool_name, {}).get("action")
    if call.tool_name.startswith("@"):
        return "waits_again" if action or call.state == "begun" else "replayed"
    if action:
        return "stubbed" if action == "stub" else "executed_again"
    said: dict[str, Becomes] = {"finished": "replayed", "failed": "runs_again"}
    return said.get(call.state, "in_doubt")
