"""`agentos show --requests`: what models were asked, and what they said."""

from typing import Any

from agentos.cli.database import opened
from agentos.cli.output import compact, out, print_json
from agentos.core.llm.kept import ModelCall, recorded_calls
from agentos.store.calls.checkpoints import require_item
from agentos.store.run import drive


def print_requests(task: str, limit: int, dsn: str | None, *, as_json: bool) -> None:
    """The newest `limit` model calls of a task, whole, oldest first."""
    with opened(dsn) as db:
        db.run(require_item(task, None))
        calls = drive(db, recorded_calls(task, limit))
    if as_json:
        return print_json({"task_id": task, "model_calls": calls})
    if not calls:
        out.print(f"task {task} has asked no model")
    for call in calls:
        _print(call)
    return None


def _print(call: ModelCall) -> None:
    out.print(f"{call.operation_type}: {call.model}", f"{call.created_at:%Y-%m-%d %H:%M:%S}", call.state)
    if call.request is None:
        out.print("  the request was not kept")
    for line in _lines(call.request):
        out.print(f"  {line}", markup=False)
    out.print(f"  → {_said(call.output)}" if call.state == "ready" else "  → under way", markup=False)


def _lines(request: Any) -> list[str]:
    """A line for each message, and one for the tools and the parameters."""
    if isinstance(request, dict) and {"prompt", "tools", "parameters"} == set(request):
        names = [str(each.get("function", each).get("name", "?")) for each in request["tools"]]
        beside = [f"tools: {', '.join(names)}"] if names else []
        beside += [f"parameters: {compact(request['parameters'], 500)}"] if request["parameters"] else []
        return [*_lines(request["prompt"]), *beside]
    if isinstance(request, list):
        return [_message(each) for each in request]
    return [] if request is None else [_said(request)]


def _message(message: Any) -> str:
    if isinstance(message, dict) and "role" in message:
        rest = {name: value for name, value in message.items() if name not in ("role", "content")}
        more = f" {compact(rest, 500)}" if rest else ""
        return f"{message['role']}: {_said(message.get('content', ''))}{more}"
    return _said(message)


def _said(value: Any) -> str:
    return value if isinstance(value, str) else compact(value, 100_000)
