"""`App`: the handlers and tools of one program, and the door to submit tasks to them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import uuid4

from agentos.core.app.arguments import bind
from agentos.core.app.handle import TaskHandle
from agentos.core.evidence import Evidence
from agentos.core.flows.tools import ToolPolicy
from agentos.core.tool import Tool, tool_function
from agentos.core.wake import Waker
from agentos.store.calls import tasks
from agentos.store.calls.ledger import OnDoubt
from agentos.store.canonical import canonical_text
from agentos.store.connect import Database
from agentos.store.errors import ConfigInvalid, InvalidInput
from agentos.store.settings import load_settings

F = TypeVar("F", bound=Callable[..., Any])

RESERVED_KINDS = ("shell", "llm", "plan")


@dataclass(frozen=True, slots=True)
class Handler:
    """A registered task handler. `function(ctx, **payload)`; async ones run on the loop, plain ones in a thread."""

    kind: str
    function: Callable[..., Any]
    max_attempts: int
    timeout_s: float | None
    queue: str

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.function)


class App:
    """Registers handlers with `@app.task(kind)` and tools with `@app.tool(name)`; `submit` creates tasks.

    `dsn`: the database to submit to; default: AGENTOS_DSN, else the embedded one. Workers that serve the app use their
    own setting.
    """

    def __init__(self, *, dsn: str | None = None) -> None:
        self.handlers: dict[str, Handler] = {}
        self.tools: dict[str, Tool] = {}
        self._dsn = dsn
        self._waker: Waker | None = None

    def task(
        self, kind: str, *, max_attempts: int = 5, timeout_s: float | None = None, queue: str = "default"
    ) -> Callable[[F], F]:
        """Register a handler `async def f(ctx, **payload)` (or a plain `def`, run in a thread).

        `max_attempts`: how often it may raise before the task fails. `timeout_s`: seconds for one attempt, default
        none.
        Raises ConfigInvalid: if the kind is taken, reserved (shell, llm, plan), or the limits make no sense.
        """
        if kind in RESERVED_KINDS or kind in self.handlers or not kind:
            raise ConfigInvalid(f"the kind {kind!r} is reserved or taken", hint="give the handler a name of its own")
        if not 1 <= max_attempts <= 1000 or (timeout_s is not None and timeout_s <= 0):
            raise ConfigInvalid(
                f"{kind!r}: max_attempts is {max_attempts}, timeout_s is {timeout_s}",
                hint="max_attempts takes 1 to 1000, timeout_s more than 0",
            )

        def register(function: F) -> F:
            self.handlers[kind] = Handler(kind, function, max_attempts, timeout_s, queue)
            return function

        return register

    def tool(
        self, name: str, *, on_doubt: OnDoubt = "fail", probe: Callable[..., Any] | None = None,
        produces: Callable[[Any], Sequence[Evidence]] | Sequence[Evidence] = (), safe_to_repeat: bool | None = None,
    ) -> Callable[[F], F]:  # fmt: skip
        """Register a tool `f(arguments)` or `f(call, arguments)`, async or plain; `call.idempotency_key` is stable.

        `on_doubt`: what to do when a call was begun and never finished: `fail` (the default, safe: the task stops
        and is
        shown as in doubt), `retry` (safe to repeat), `probe` (ask `probe(call, arguments)` for Done, NOT_DONE,
        UNKNOWN).
        `produces`: evidence that must hold for a recorded call to be replayed. `safe_to_repeat`: may run again, with
        the
        same idempotency key, when that evidence does not hold; default: when `on_doubt` is `retry`.
        """
        if (on_doubt == "probe") != (probe is not None):
            raise ConfigInvalid(
                f"tool {name!r}: on_doubt is {on_doubt!r} and probe is {probe!r}",
                hint='on_doubt="probe" goes with probe=, and only with it',
            )
        policy = ToolPolicy(on_doubt=on_doubt, probe=probe, produces=produces, safe_to_repeat=safe_to_repeat)

        def register(function: F) -> F:
            self.tools[name] = Tool(name, tool_function(function), policy)
            return function

        return register

    def submit(
        self, kind: str, payload: Mapping[str, Any] | None = None, *, task_id: str | None = None, title: str | None =
        None,
        queue: str | None = None, priority: int = 0, delay_s: float = 0.0,
    ) -> TaskHandle:  # fmt: skip
        """Create a task of one item. Blocks for one commit.

        `priority`: one step is worth a minute of waiting. Raises InvalidArguments: if the payload does not fit the
        handler. InvalidValue, ValueTooLarge: if JSON cannot hold it. TaskExists: if the `task_id` is taken.
        """
        handler = self.handlers.get(kind)
        body = dict(payload or {})
        if handler is not None:
            bind(kind, handler.function, body)
        elif kind not in RESERVED_KINDS and self.handlers:
            raise InvalidInput(
                f"this app has no handler for {kind!r}; it has {', '.join(sorted(self.handlers))}",
                hint="register it with @app.task, or submit through an App() without handlers",
            )
        text = canonical_text(body, what="payload")
        task_id = task_id or f"task-{uuid4().hex}"
        queue = queue or (handler.queue if handler else "default")
        db = self._database()
        db.run(
            tasks.submit(
                task_id, kind, title or kind, text, queue=queue, priority=priority, delay_s=delay_s,
                max_attempts=handler.max_attempts if handler else 5, timeout_s=handler.timeout_s if handler else None,
            )
        )  # fmt: skip
        self._wake(db, queue)
        return TaskHandle(task_id, db)

    def handle(self, task_id: str) -> TaskHandle:
        """A handle on a task submitted earlier, by anybody."""
        return TaskHandle(task_id, self._database())

    def _database(self) -> Database:
        return Database.default(load_settings(dsn=self._dsn))

    def _wake(self, db: Database, queue: str) -> None:
        if self._waker is None:
            self._waker = Waker(db)
        self._waker.wake(queue)
