"""What a handler is given: the item's snapshot and the calls that make its work durable."""

import asyncio
import functools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, Protocol, TypeVar

from agentos.core.evidence import Evidence, EvidencePack
from agentos.core.flows.tools import ToolCall, ToolPolicy
from agentos.core.logs import get_logger
from agentos.core.scope import ItemScope
from agentos.store.calls.checkpoints import Committed
from agentos.store.run import AsyncRunner, Flow, adrive

T = TypeVar("T")

GenerateFunction = Callable[[Any], Any]


class Guard(Protocol):
    """The process around a handler: whether it may go on."""

    def after_checkpoint(self) -> None:
        """Raises when the worker drains: the work is saved, another host goes on."""


class TaskContext:
    """Passed to every async handler as its first argument.

    `snapshot`: what the newest checkpoint of this item that still holds carried; None on the first run.
    `task_id`, `item_id`, `attempt`, `key`: which item this is, and which claim of it.
    """

    def __init__(self, scope: ItemScope, db: AsyncRunner, guard: Guard, default_model: str, complete: GenerateFunction):
        self._scope = scope
        self._db = db
        self._guard = guard
        self._model = default_model
        self._complete = complete
        self.log = get_logger("agentos.handler")

    @property
    def snapshot(self) -> Any:
        """What the checkpoint this attempt resumed from carried; None: start from the beginning."""
        return self._scope.snapshot

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self._scope.task_id

    @property
    def item_id(self) -> int:
        """The work item's id."""
        return self._scope.item.item_id

    @property
    def key(self) -> str | None:
        """The item's key in its plan, if it has one."""
        return self._scope.item.key

    @property
    def attempt(self) -> int:
        """Which claim of the item this is, from 1."""
        return self._scope.item.attempt

    async def checkpoint(
        self, checkpoint_type: str, snapshot: Any, evidence: Sequence[Evidence] | EvidencePack = ()
    ) -> Committed:
        """Commit where the work stands. A later attempt gets `snapshot` back if `evidence` still holds then.

        `checkpoint_type`: one of the eight. Raises InvalidCheckpointType, InvalidValue, ValueTooLarge; LeaseLost: if
        the
        item is another worker's by now.
        """
        committed = await self._run(self._scope.checkpoint(checkpoint_type, snapshot, evidence))
        self._guard.after_checkpoint()
        return committed

    async def tool(
        self, name: str, arguments: Any = None, *, key: str | None = None,
        execute: Callable[[ToolCall, Any], Any] | None = None, policy: ToolPolicy | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Run a tool once: its intent is recorded before, its result after; a later attempt gets the recorded result.

        `key` names the call; without it a call is told by tool, arguments and place in the program, and the same call
        made twice on purpose is two calls. `execute`, `policy`: instead of a registered tool and its declaration.
        Raises InDoubt, PostconditionFailed, CallBeforeCheckpoint: when going on would repeat or invent an effect.
        """
        outcome = await self._run(self._scope.tool(name, arguments, key=key, execute=execute, policy=policy))
        return outcome.result

    async def llm(
        self, operation_type: str, *, prompt: Any, model: str | None = None, generate: GenerateFunction | None = None,
        sample: int | None = None,
    ) -> Any:  # fmt: skip
        """A model's output, paid for once: the same operation, prompt and model of this task are answered by the
        record.

        `generate(prompt)`: sync or async, any JSON value; default: the endpoint of AGENTOS_LLM_*, else the stand-in.
        `sample`: asks for a second, third ... output on purpose.
        """
        make = functools.partial(generate or self._complete, prompt)
        flow = self._scope.llm(operation_type, prompt, model=model or self._model, generate=make, sample=sample)
        return await self._run(flow)

    async def expand(self, items: Sequence[Mapping[str, Any]]) -> int:
        """Add work items to this task: objects with `key`, `kind` and any of `payload`, `depends_on` (keys of items of
        this task), `queue`, `max_attempts`, `timeout_s`. Returns how many were new.

        An item whose key the task already has is left as it is, so a handler that runs again may say the same again.
        Raises InvalidDependency: if an item has no key, or depends on one that the task does not have. LeaseLost,
        TaskCancelled.
        """
        return await self._run(self._scope.expand(items))

    async def results(self) -> dict[str, Any]:
        """The results of the items that this one depends on, by their keys, in the order of the plan."""
        return await self._run(self._scope.results())

    async def _run(self, flow: Flow[T]) -> T:
        return await adrive(self._db, flow)


class BlockingContext:
    """Passed to plain (`def`) handlers, which run in a thread: the same calls, blocking."""

    def __init__(self, context: TaskContext, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop
        self._asked: set[Future[Any]] = set()
        self._ended = False
        self.log = context.log

    def end(self) -> None:
        """The handler must end: what it waits for is cancelled, and what it asks from now on too. On the loop."""
        self._ended = True
        for asked in list(self._asked):
            asked.cancel()

    def __getattr__(self, name: str) -> Any:
        if name in ("snapshot", "task_id", "item_id", "key", "attempt"):
            return getattr(self._context, name)
        raise AttributeError(f"a blocking task context has no {name!r}")

    def checkpoint(
        self, checkpoint_type: str, snapshot: Any, evidence: Sequence[Evidence] | EvidencePack = ()
    ) -> Committed:
        """As `TaskContext.checkpoint`."""
        return self._wait(self._context.checkpoint(checkpoint_type, snapshot, evidence))

    def tool(
        self, name: str, arguments: Any = None, *, key: str | None = None,
        execute: Callable[[ToolCall, Any], Any] | None = None, policy: ToolPolicy | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """As `TaskContext.tool`."""
        return self._wait(self._context.tool(name, arguments, key=key, execute=execute, policy=policy))

    def llm(
        self, operation_type: str, *, prompt: Any, model: str | None = None, generate: GenerateFunction | None = None,
        sample: int | None = None,
    ) -> Any:  # fmt: skip
        """As `TaskContext.llm`."""
        return self._wait(
            self._context.llm(operation_type, prompt=prompt, model=model, generate=generate, sample=sample)
        )

    def expand(self, items: Sequence[Mapping[str, Any]]) -> int:
        """As `TaskContext.expand`."""
        return self._wait(self._context.expand(items))

    def results(self) -> dict[str, Any]:
        """As `TaskContext.results`."""
        return self._wait(self._context.results())

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        asked = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        self._asked.add(asked)
        try:
            if self._ended:
                asked.cancel()
            return asked.result()
        except CancelledError:
            raise asyncio.CancelledError from None  # the one that `except Exception` lets through
        finally:
            self._asked.discard(asked)
