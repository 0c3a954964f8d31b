"""The built-in kinds of work: shell, llm, plan. Each is a flow over a scope, the same for worker and runner."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agentos.core.evidence import Evidence, EvidencePack, EvidenceType, PackVerdict
from agentos.core.flows.tools import ToolOutcome, ToolPolicy
from agentos.core.flows.waits import Answer
from agentos.core.llm import STAND_IN_MODEL, client_from_settings
from agentos.core.model import configured_completion
from agentos.core.plan import parse_model_plan, planning_prompt, stand_in_plan_json, to_items
from agentos.core.shell import OPTION_NAMES
from agentos.store.calls import timeline
from agentos.store.calls.items import ClaimedItem
from agentos.store.canonical import canonical_text
from agentos.store.errors import CommandFailed, InvalidArguments, NonRetryable, PostconditionFailed
from agentos.store.run import Flow, do
from agentos.store.settings import load_settings

_SHOWN_OUTPUT = 2000
_TIMEOUT_SHARE = 0.95  # of the item's: the command then ends as failed, before the handler is cut off in doubt


class Scope(Protocol):
    """What a kind works with: `ItemScope`, which records everything, or the runner's `DirectScope`, which does not."""

    item: ClaimedItem
    snapshot: Any

    def tool(self, name: str, arguments: Any, *, policy: ToolPolicy | None = None) -> Flow[ToolOutcome]: ...
    def llm(self, operation_type: str, prompt: Any, *, model: str, generate: Callable[[], Any]) -> Flow[Any]: ...
    def checkpoint(self, checkpoint_type: str, snapshot: Any, evidence: EvidencePack) -> Flow[Any]: ...
    def check(self, evidence: Sequence[Evidence]) -> Flow[PackVerdict]: ...
    def expand(self, new_items: Sequence[Mapping[str, Any]]) -> Flow[int]: ...
    def ask(self, question: str, shown: Any) -> Flow[Answer]: ...


@dataclass(frozen=True, slots=True)
class Kind:
    """`perform` does the work; afterwards a checkpoint of this type carries its output, with its evidence."""

    perform: Callable[[Any, dict[str, Any]], Flow[Any]]
    checkpoint_type: str


def evidence_of(kind: str, payload: Mapping[str, Any], output: Any) -> EvidencePack:
    """What can be checked again about an item that is done: the evidence its payload declares; for a command without
    any, that its recorded exit code is the one it had.

    Raises InvalidEvidence: if what the payload declares is not well-formed.
    """
    declared = [Evidence.from_json(each) for each in payload.get("evidence") or ()]
    if declared or kind != "shell":
        return EvidencePack(declared)
    exit_code = output.get("exit_code", 0) if isinstance(output, Mapping) else 0
    command = _command_text(payload["command"])
    claim = Evidence(
        EvidenceType.COMMAND_EXIT,
        "the command ended",
        {"exit_code": exit_code},
        {"command": command} if command else {},
    )
    return EvidencePack([claim])


def _command_text(command: Any) -> str:
    """The command as evidence names it: a program with arguments by its JSON, as the ledger has it."""
    return command if isinstance(command, str) else canonical_text(command)


# -- shell --------------------------------------------------------------------------------------------------------


def _shell(scope: Scope, payload: dict[str, Any]) -> Flow[Any]:
    """{"command", "cwd"?, "env"?, "allow_exit"? (default [0]), "evidence"?, "on_doubt"? (fail, ask, retry), and any of
    timeout_s, memory_mb, processes, file_mb, cpu_s, output_kb, sandbox, network}.
    """
    command = payload.get("command")
    if not isinstance(command, str | list) or not command:
        raise InvalidArguments(f"a shell item needs a command, it has {command!r:.100}", hint='{"command": "make"}')
    allowed = payload.get("allow_exit") or [0]
    declared = evidence_of("shell", payload, None).evidence_list if payload.get("evidence") else []
    policy = ToolPolicy(
        on_doubt=payload.get("on_doubt", "fail"),
        produces=declared,
        failure=lambda result: _failure(command, result, allowed),
    )
    outcome = yield from scope.tool("bash", _arguments(scope.item, payload), policy=policy)
    if declared and not outcome.replayed:
        yield from _require(scope, declared, policy)
    return outcome.result


def _arguments(item: ClaimedItem, payload: dict[str, Any]) -> Any:
    options = {name: payload[name] for name in ("cwd", "env", *OPTION_NAMES) if payload.get(name) is not None}
    if item.timeout_s is not None:
        options.setdefault("timeout_s", item.timeout_s * _TIMEOUT_SHARE)
    return {"command": payload["command"], **options} if options else payload["command"]


def _failure(command: Any, result: Any, allowed: Sequence[int]) -> CommandFailed | None:
    code = result.get("exit_code") if isinstance(result, Mapping) else None
    if code in allowed:
        return None
    said = (
        str(result.get("stderr") or result.get("stdout") or "")[-_SHOWN_OUTPUT:] if code is not None else repr(result)
    )
    return CommandFailed(f"{_command_text(command)[:200]!r} ended with exit code {code}", detail=said or None)


def _require(scope: Scope, declared: Sequence[Evidence], policy: ToolPolicy) -> Flow[None]:
    verdict = yield from scope.check(declared)
    if verdict.holds:
        return
    message = f"the command ended well, and its evidence does not hold: {verdict.reason}"
    if policy.repeats_safely:
        raise CommandFailed(message)
    raise PostconditionFailed(message, hint="correct the command or its evidence, then: agentos retry TASK")


# -- llm ----------------------------------------------------------------------------------------------------------


def _llm(scope: Scope, payload: dict[str, Any]) -> Flow[Any]:
    """{"prompt", "system"?, "model"? (default: AGENTOS_LLM_MODEL, else the stand-in), "operation_type"? (generate)}"""
    prompt = payload.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidArguments(f"an llm item needs a prompt, it has {prompt!r:.100}", hint='{"prompt": "Summarise …"}')
    model, generate = _ask_model(prompt, payload)
    asked: Any = {"system": payload["system"], "prompt": prompt} if payload.get("system") else prompt
    operation = payload.get("operation_type", "generate")
    return (yield from scope.llm(operation, asked, model=model, generate=generate))


def _ask_model(prompt: str, payload: Mapping[str, Any]) -> tuple[str, Callable[[], Any]]:
    settings = load_settings()
    model, complete = configured_completion(settings)
    if model == STAND_IN_MODEL:
        return model, lambda: complete(prompt)
    client = client_from_settings(settings)
    wanted = payload.get("model") or model
    return wanted, lambda: client.complete(prompt, model=wanted, system=payload.get("system"))


# -- plan ---------------------------------------------------------------------------------------------------------


def _plan(scope: Scope, payload: dict[str, Any]) -> Flow[Any]:
    """{"goal", "input"?, "model"?, "auto_approve"? (default no), "stand_in"?}: items for the task of this item."""
    prompt, model, generate = planner(payload)
    decided = yield from decision(scope)
    if decided is not None:
        return (yield from make_items(scope, decided))
    text = yield from scope.llm("plan", prompt, model=model, generate=generate)
    return (yield from adopt(scope, text, approved=model == STAND_IN_MODEL or bool(payload.get("auto_approve"))))


def planner(payload: Mapping[str, Any]) -> tuple[str, str, Callable[[], Any]]:
    """The prompt for a goal, the model that answers it, and the call. Raises InvalidArguments, ConfigInvalid."""
    prompt = plan_prompt(payload)
    if payload.get("stand_in") or load_settings().llm_base_url is None:
        return prompt, STAND_IN_MODEL, lambda: stand_in_plan_json(prompt)
    model, generate = _ask_model(prompt, payload)
    return prompt, model, generate


def plan_prompt(payload: Mapping[str, Any]) -> str:
    """What the planner is asked. Raises InvalidArguments: if the payload has no goal."""
    goal = payload.get("goal")
    if not isinstance(goal, str) or not goal.strip():
        raise InvalidArguments(f"a plan item needs a goal, it has {goal!r:.100}", hint='{"goal": "Audit the logs"}')
    given = payload.get("input") or {}
    return planning_prompt(goal, given if isinstance(given, dict) else {"input": given})


def decision(scope: Scope) -> Flow[list[dict[str, Any]] | None]:
    """The items a person approved, exactly as shown; None: nothing was asked yet. Raises NonRetryable: if refused."""
    asked = yield from do(timeline.task_approvals(scope.item.task_id))
    mine = next((each for each in asked if each.item_id == scope.item.item_id and each.approved is not None), None)
    if mine is None:
        return None
    if not mine.approved:
        raise NonRetryable(f"the plan was rejected by {mine.answered_by or 'a person'}")
    items: list[dict[str, Any]] = mine.shown["items"]
    return items


def adopt(scope: Scope, text: str, *, approved: bool) -> Flow[Any]:
    """Check a model's answer and make it the task's items; without approval, ask a person first.

    Raises InvalidPlan: before anything is created. Parked: the item waits for `agentos approve TASK`.
    """
    items = to_items(parse_model_plan(text))
    if approved:
        return (yield from make_items(scope, items))
    shown = {"items": items}
    yield from scope.checkpoint("approval_point", shown, EvidencePack([]))
    yield from scope.ask(f"run this plan of {len(items)} items?", shown)
    return (yield from make_items(scope, items))


def make_items(scope: Scope, items: Sequence[Mapping[str, Any]]) -> Flow[Any]:
    """Add the items to the task, under the planner's key. A planner that died after its commit may say it again."""
    above = f"{scope.item.key}/" if scope.item.key else ""  # else an item named as the planner's would be lost
    named = [
        {**item, "key": above + item["key"], "depends_on": [above + key for key in item.get("depends_on") or ()]}
        for item in items
    ]
    yield from scope.expand(named)
    return {"items": [item["key"] for item in named]}


# -- all ----------------------------------------------------------------------------------------------------------

KINDS = {
    "shell": Kind(_shell, "tool_executed"),
    "llm": Kind(_llm, "llm_response"),
    "plan": Kind(_plan, "state_transition"),
}


def done_before(kind: str, snapshot: Any) -> bool:
    """Whether a snapshot is that of a finished performance of this kind (a plan's approval point is not)."""
    return isinstance(snapshot, dict) and snapshot.get("done") == kind


def finished_snapshot(kind: str, output: Any) -> dict[str, Any]:
    """The snapshot of an item that is done but for its completion."""
    return {"done": kind, "output": output}


def _complete(kind: str) -> Callable[[Any, dict[str, Any]], Flow[Any]]:
    def flow(scope: Scope, payload: dict[str, Any]) -> Generator[Any, Any, Any]:
        if done_before(kind, scope.snapshot):
            return scope.snapshot["output"]
        output = yield from KINDS[kind].perform(scope, payload)
        pack = evidence_of(kind, payload, output)
        yield from scope.checkpoint(KINDS[kind].checkpoint_type, finished_snapshot(kind, output), pack)
        return output

    return flow


BUILTIN: dict[str, Callable[[Any, dict[str, Any]], Flow[Any]]] = {kind: _complete(kind) for kind in KINDS}
"""What a worker runs for an item of a built-in kind: `BUILTIN[kind](scope, payload)`."""
