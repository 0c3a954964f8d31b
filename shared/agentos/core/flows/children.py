"""Child tasks: made once per call, whatever dies; and waited for together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from agentos.core.flows.patience import insist
from agentos.core.flows.waits import Wait
from agentos.core.scope import ItemScope
from agentos.core.tracing.step import carrier
from agentos.store.calls import waits
from agentos.store.calls.traces import with_trace
from agentos.store.canonical import canonical_text, digest
from agentos.store.errors import ChildFailed, InvalidInput
from agentos.store.run import Flow
from agentos.store.sealed_items import seal_payloads

OnFailure = Literal["cancel", "wait"]
"""What becomes of the other children when one did not complete: they are cancelled, or go on to their ends."""


@dataclass(frozen=True, slots=True)
class Child:
    """A child task: pass it to `ctx.gather`. Its id is made of the call, so an attempt that makes the call again gets
    the same one.
    """

    task_id: str
    kind: str


@dataclass(frozen=True, slots=True)
class NewChild:
    """How a child runs. `max_attempts`, `timeout_s`: None: as its handler says, or the defaults of `submit`.
    `version`: of its handler; None: the newest that a worker runs. `deadline_s`: from when it is made; None: none.
    `priority` None: its parent's.
    """

    kind: str
    payload: Mapping[str, Any]
    title: str
    queue: str
    priority: int | None
    max_attempts: int
    timeout_s: float | None
    version: int | None = None
    deadline_s: float | None = None
    limit_key: str = ""

    def items(self) -> str:
        """JSON text of its one item."""
        item = {"key": "main", "kind": self.kind, "payload": dict(self.payload), "max_attempts": self.max_attempts}
        for name in ("timeout_s", "version", "deadline_s"):
            if (value := getattr(self, name)) is not None:
                item[name] = value
        if self.limit_key:
            item["limit_key"] = self.limit_key
        return canonical_text(seal_payloads([item]), what="payload")


def spawn(scope: ItemScope, new: NewChild, key: str | None) -> Flow[Child]:
    """Raises CallBeforeCheckpoint: if an unkeyed one was made before the checkpoint this attempt resumed from."""
    told = {"kind": new.kind, "payload_sha256": digest(dict(new.payload), what="payload")}
    identity = scope.identify("@spawn", told, key=key)
    yield from scope.refuse_if_before(identity)
    child = f"task-{identity.key[:32]}"
    call = waits.spawn(
        identity, scope.fence, child=child, title=new.title, queue=new.queue, priority=new.priority, items=new.items()
    )  # fmt: skip
    if traced := carrier():
        call = with_trace(call, [child], traced["traceparent"], traced.get("tracestate"))
    made = yield from insist(call)
    return Child(made, new.kind)


def gather(
    scope: ItemScope, children: Sequence[Child], *, return_exceptions: bool, on_failure: OnFailure | None
) -> Wait:
    """Waits until all have ended. Raises InvalidInput: if `on_failure` is neither."""
    cancels = not return_exceptions if on_failure is None else on_failure == "cancel"
    if on_failure not in (None, *get_args(OnFailure)):
        raise InvalidInput(f"on_failure={on_failure!r:.80} is not known", hint="use 'cancel' or 'wait'")
    asked: dict[str, Any] = {"children": [each.task_id for each in children]}
    identity = scope.identify("@gather", {**asked, "on_failure": "cancel"} if cancels else asked)

    def read(result: Any) -> list[Any]:
        told = result["children"]
        ended = [_result(child, each) for child, each in zip(children, told, strict=True)]
        failed = [n for n, each in enumerate(ended) if isinstance(each, ChildFailed)]
        if failed and not return_exceptions:
            raise ended[min(failed, key=lambda n: told[n]["ended_at"])]  # the cause: others were cancelled for it
        return ended

    return Wait(lambda park: waits.wait(identity, scope.fence, park=park), read, "children")


def _result(child: Child, told: Mapping[str, Any]) -> Any:
    if told["status"] == "completed":
        return told["result"]
    reason = told["reason"] or "no reason given"
    return ChildFailed(
        f"the child task {child.task_id} ({child.kind}) {'failed' if told['status'] == 'failed' else 'was cancelled'}: "
        f"{reason}",
        hint=f"agentos show {child.task_id}",
    )
