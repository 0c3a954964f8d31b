"""`App`: the handlers and tools of one program, and the door to submit tasks to them."""

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Unpack, get_args

import psycopg

from agentos.core.app.arguments import bind
from agentos.core.app.bulk import calls_of, checked_ids
from agentos.core.app.handle import AsyncSubmittedTask, SubmittedTask, TaskHandle
from agentos.core.app.keyed import reservation
from agentos.core.app.retry import Retry
from agentos.core.app.submission import (
    Submission,
    SubmitManyOptions,
    SubmitOptions,
    awrite_on,
    checked_connection,
    write,
    write_on,
)
from agentos.core.budget import Budget
from agentos.core.evidence import Evidence
from agentos.core.flows.program import OnChange
from agentos.core.flows.tools import ToolPolicy
from agentos.core.llm.prices import use_prices
from agentos.core.task_id import new_task_id
from agentos.core.tool import Tool, shell_tool, tool_function
from agentos.core.wake import waker_of
from agentos.store.calls import tasks
from agentos.store.calls.budgets import with_budget
from agentos.store.calls.doubts import Doubt, open_doubts
from agentos.store.calls.ledger import OnDoubt
from agentos.store.canonical import canonical_text
from agentos.store.connect import Database
from agentos.store.errors import ConfigInvalid, InvalidInput
from agentos.store.joined import joined
from agentos.store.settings import load_settings

F = TypeVar("F", bound=Callable[..., Any])

Isolation = Literal["none", "process"]
MEMORY_LEAST_MB = 128
"""Below it the interpreter of an isolated handler does not even start."""

RESERVED_KINDS = ("shell", "llm", "plan")


@dataclass(frozen=True, slots=True)
class Handler:
    """A registered task handler. `function(ctx, **payload)`; async ones run on the loop, plain ones in a thread."""

    kind: str
    function: Callable[..., Any]
    max_attempts: int
    timeout_s: float | None
    queue: str
    budget: Budget | None = None
    deadline_s: float | None = None
    on_change: OnChange = "ask"
    retry: Retry | None = None
    cancel_grace_s: float | None = None
    isolation: Isolation = "none"
    memory_mb: int | None = None

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.function)


class App:
    """Registers handlers with `@app.task(kind)` and tools with `@app.tool(name)`; `submit` creates tasks.

    `dsn`: the database to submit to; default: AGENTOS_DSN when it first submits, else the embedded one. Workers that
    serve the app use their own setting.
    """

    def __init__(self, *, dsn: str | None = None, prices: Mapping[str, Any] | None = None) -> None:
        """`prices` of models, as AGENTOS_LLM_PRICES has them; for this process. Raises ConfigInvalid."""
        if prices is not None:
            use_prices(prices)
        self.handlers: dict[str, Handler] = {}
        self.tools: dict[str, Tool] = {}
        self._dsn = dsn
        self._found: Database | None = None
        self._lanes: set[tuple[str, str]] = set()
        """Queues and kinds whose lane is known to be committed."""

    def task(  # noqa: PLR0913  each by its name
        self, kind: str, *, max_attempts: int | None = None, timeout_s: float | None = None, queue: str = "default",
        budget: Budget | None = None, deadline_s: float | None = None,
        on_change: OnChange = "ask", retry: Retry | None = None, cancel_grace_s: float | None = None,
        isolation: Isolation = "none", memory_mb: int | None = None,
    ) -> Callable[[F], F]:  # fmt: skip
        """Register a handler `async def f(ctx, **payload)` (or a plain `def`, run in a thread).

        `max_attempts`: how often it may raise before the task fails (default: as `retry` has it, 5). `retry`: when it
        runs again after an exception; default: after 1 s, 2 s, 4 s ..., at most 5 minutes.
        `timeout_s`: seconds for one attempt, default none. `budget`: what each of its tasks may spend on models.
        `deadline_s`: seconds from the submit until each
        of its tasks must have ended, whatever was retried or waited for; then it fails as DeadlineExceeded.
        `on_change`: what to do when a later attempt makes other tool calls than the recorded ones: `ask` a person
        (`agentos doubts`), `continue` (for programs that may: the new calls run, the recorded ones stay), or `fail`.
        `cancel_grace_s`: seconds it may take to end when it is cancelled (default: AGENTOS_CANCEL_GRACE_S, 2); then its
        end is written without it.
        `isolation="process"`: each attempt runs in a child process of the worker, for code that may segfault, leak or
        never return: killed at `timeout_s`, and above `memory_mb` (MiB, from 128; default no limit). However it dies,
        that is a failure of the attempt (IsolatedHandlerDied). `ctx.transaction` is refused there.
        Raises ConfigInvalid: if the kind is taken, reserved (shell, llm, plan), or the limits make no sense.
        """
        if kind in RESERVED_KINDS or kind in self.handlers or not kind:
            raise ConfigInvalid(f"the kind {kind!r} is reserved or taken", hint="give the handler a name of its own")
        _check_deadline(deadline_s)
        if retry is not None and not isinstance(retry, Retry):
            raise ConfigInvalid(f"{kind!r}: retry is {retry!r:.80}", hint="pass retry=Retry(initial_s=..., ...)")
        if max_attempts is None:
            max_attempts = 5 if retry is None else retry.max_attempts
        if not 1 <= max_attempts <= 1000 or (timeout_s is not None and timeout_s <= 0):
            raise ConfigInvalid(
                f"{kind!r}: max_attempts is {max_attempts}, timeout_s is {timeout_s}",
                hint="max_attempts takes 1 to 1000, timeout_s more than 0",
            )

        if cancel_grace_s is not None and not 0 <= cancel_grace_s <= 86_400:
            raise ConfigInvalid(f"{kind!r}: cancel_grace_s is {cancel_grace_s!r}", hint="pass seconds, 0 to 86400")
        if on_change not in get_args(OnChange):
            raise ConfigInvalid(f"{kind!r}: on_change is {on_change!r}", hint="use 'ask', 'continue' or 'fail'")

        _check_isolation(kind, isolation, memory_mb)

        def register(function: F) -> F:
            self.handlers[kind] = Handler(
                kind, function, max_attempts, timeout_s, queue, budget, deadline_s, on_change, retry,
                cancel_grace_s, isolation, memory_mb,
            )  # fmt: skip
            return function

        return register

    def tool(
        self, name: str, *, on_doubt: OnDoubt = "fail", probe: Callable[..., Any] | None = None,
        produces: Callable[[Any], Sequence[Evidence]] | Sequence[Evidence] = (), safe_to_repeat: bool | None = None,
        on_unknown: Literal["ask", "fail"] = "fail",
    ) -> Callable[[F], F]:  # fmt: skip
        """Register a tool `f(arguments)` or `f(call, arguments)`, async or plain; `call.idempotency_key` is stable.

        `on_doubt`: what to do when a call was begun and never finished: `fail` (the default, safe: the task stops and
        is shown as in doubt), `ask` (the item is parked until somebody says what happened: `agentos doubts`), `retry`
        (safe to repeat), `probe` (ask `probe(call, arguments)`, sync or async, for Done, NOT_DONE, UNKNOWN; for
        UNKNOWN, and when it raises, `on_unknown` decides: `ask` or `fail`).
        `produces`: evidence that must hold for a recorded call to be replayed. `safe_to_repeat`: may run again, with
        the
        same idempotency key, when that evidence does not hold; default: when `on_doubt` is `retry`.
        """
        if (on_doubt == "probe") != (probe is not None):
            raise ConfigInvalid(
                f"tool {name!r}: on_doubt is {on_doubt!r} and probe is {probe!r}",
                hint='on_doubt="probe" goes with probe=, and only with it',
            )
        policy = ToolPolicy(
            on_doubt=on_doubt, probe=probe, produces=produces, safe_to_repeat=safe_to_repeat, on_unknown=on_unknown
        )

        def register(function: F) -> F:
            self.tools[name] = Tool(name, tool_function(function), policy)
            return function

        return register

    def shell_tool(
        self, name: str, *, on_doubt: OnDoubt = "fail", probe: Callable[..., Any] | None = None,
        produces: Callable[[Any], Sequence[Evidence]] | Sequence[Evidence] = (), safe_to_repeat: bool | None = None,
        **options: Any,
    ) -> None:  # fmt: skip
        """Register a tool that runs commands as the built-in `bash` does, with options of its own.

        `options`: any of timeout_s, memory_mb, processes, file_mb, cpu_s, output_kb, sandbox ("bwrap"), network; they
        stand over the settings AGENTOS_SHELL_*, and under what a call asks for. The name `bash` replaces the built-in.
        Raises InvalidArguments: if an option is not known or makes no sense.
        """
        policy = ToolPolicy(on_doubt=on_doubt, probe=probe, produces=produces, safe_to_repeat=safe_to_repeat)
        self.tools[name] = shell_tool(name, policy, **options)

    def submit(  # noqa: PLR0913  each by its name
        self, kind: str, payload: Mapping[str, Any] | None = None, *, task_id: str | None = None,
        title: str | None = None, queue: str | None = None, priority: int = 0, delay_s: float = 0.0,
        max_attempts: int | None = None,
        budget: Budget | None = None, deadline_s: float | None = None, conn: psycopg.Connection[Any] | None = None,
        idempotency_key: str | None = None,
    ) -> SubmittedTask:  # fmt: skip
        """Create a task of one item. Blocks for one commit.

        `priority`: one step is worth a minute of waiting. `max_attempts`: default, as the handler declares.
        `budget`: what the task may spend on models, instead of
        its handler's. `deadline_s`: seconds from now until it must have ended; then it fails as DeadlineExceeded,
        wherever it is. `conn`: a psycopg connection of the caller's, in whose
        transaction the task is created, with whatever else that writes; no worker is woken then, they find it at their
        next poll after the commit, or `handle.wake()` tells them. `idempotency_key`: said again, the submit
        returns the task of the first time; `created` of the handle tells.
        Raises InvalidArguments: if the payload does not fit the handler. InvalidValue, ValueTooLarge: if JSON cannot
        hold it. TaskExists: if the `task_id` is taken. IdempotencyConflict: if the key was used for something else.
        """
        asked = self._one(
            kind, payload, task_id=task_id, title=title, queue=queue, priority=priority, delay_s=delay_s,
            max_attempts=max_attempts, budget=budget, deadline_s=deadline_s, idempotency_key=idempotency_key,
        )  # fmt: skip
        return self._put(asked, conn)[0]

    async def asubmit(
        self, kind: str, payload: Mapping[str, Any] | None = None, *, conn: Any = None,
        **options: Unpack[SubmitOptions],
    ) -> AsyncSubmittedTask:  # fmt: skip
        """`submit`, awaited. `conn`: an asyncpg connection, or a psycopg.AsyncConnection, that is in a transaction.

        After the commit `await handle.wake()` tells the workers, or they find it at their next poll. Without `conn`,
        one that is cancelled while it waits may have made the task: pass a `task_id` to know which.
        """
        return (await self._aput(self._one(kind, payload, **options), conn))[0]

    def submit_many(
        self, kind: str, payloads: Iterable[Mapping[str, Any]], *, task_ids: Sequence[str] | None = None,
        title: str | None = None, queue: str | None = None, priority: int = 0, delay_s: float = 0.0,
        max_attempts: int | None = None,
        deadline_s: float | None = None, conn: psycopg.Connection[Any] | None = None,
    ) -> list[SubmittedTask]:  # fmt: skip
        """Create a task of one item for each payload, all of them or none. Blocks for one commit.

        `task_ids`: one for each payload; default, they are made. The rest as in `submit`. In a transaction of the
        caller's (`conn`) they stand behind a savepoint: what is refused here leaves that transaction usable.
        Raises InvalidInput: if there are not as many ids as payloads. InvalidArguments, InvalidValue, ValueTooLarge,
        TaskExists: as `submit`.
        """
        asked = self._many(
            kind, payloads, task_ids=task_ids, title=title, queue=queue, priority=priority, delay_s=delay_s,
            max_attempts=max_attempts, deadline_s=deadline_s,
        )  # fmt: skip
        return self._put(asked, conn)

    async def asubmit_many(
        self, kind: str, payloads: Iterable[Mapping[str, Any]], *, conn: Any = None,
        **options: Unpack[SubmitManyOptions],
    ) -> list[AsyncSubmittedTask]:  # fmt: skip
        """`submit_many`, awaited; `conn` as in `asubmit`."""
        return await self._aput(self._many(kind, payloads, **options), conn)

    def signal(self, task_id: str, name: str, payload: Any = None) -> None:
        """Send a signal to a task: see `TaskHandle.signal`."""
        self.handle(task_id).signal(name, payload)

    async def asignal(self, task_id: str, name: str, payload: Any = None) -> None:
        """The same, awaited."""
        await asyncio.to_thread(self.signal, task_id, name, payload)

    def wake(self, queue: str = "default") -> None:
        """Tell the workers of a queue that there is work, soon; returns at once. Only needed after the commit of a
        transaction that `conn` was given for.
        """
        waker_of(self._database()).wake(queue)

    def handle(self, task_id: str) -> TaskHandle:
        """A handle on a task submitted earlier, by anybody."""
        return TaskHandle(task_id, self._database())

    def doubts(self, limit: int = 100) -> tuple[Doubt, ...]:
        """The open questions of all tasks, oldest first: answer with `app.handle(doubt.task_id).resolve(...)`."""
        return self._database().run(open_doubts(None, limit))

    async def adoubts(self, limit: int = 100) -> tuple[Doubt, ...]:
        """The same, awaited."""
        return await asyncio.to_thread(self.doubts, limit)

    def _handler(self, kind: str) -> Handler | None:
        """What is registered; None: this app has none of its own, or the kind is built in."""
        handler = self.handlers.get(kind)
        if handler is None and kind not in RESERVED_KINDS and self.handlers:
            raise InvalidInput(
                f"this app has no handler for {kind!r}; it has {', '.join(sorted(self.handlers))}",
                hint="register it with @app.task, or submit through an App() without handlers",
            )
        return handler

    def _one(  # noqa: PLR0913  each by its name
        self, kind: str, payload: Mapping[str, Any] | None, *, task_id: str | None = None, title: str | None = None,
        queue: str | None = None, priority: int = 0, delay_s: float = 0.0, max_attempts: int | None = None,
        budget: Budget | None = None, deadline_s: float | None = None, idempotency_key: str | None = None,
    ) -> Submission:  # fmt: skip
        handler = self._handler(kind)
        text = _payload(kind, handler, payload or {})
        task_id = task_id or new_task_id()
        queue = queue or (handler.queue if handler else "default")
        call = tasks.submit(
            task_id, kind, title or kind, text, queue=queue, priority=priority, delay_s=delay_s,
            max_attempts=_attempts(handler, max_attempts), timeout_s=handler.timeout_s if handler else None,
        )  # fmt: skip
        limited = budget or (handler.budget if handler else None)
        if limited is not None:
            call = with_budget(call, [task_id], limited.limits, limited.on_exceed)
        _check_deadline(deadline_s)
        deadline = deadline_s or (handler.deadline_s if handler else None)
        if deadline is not None:
            call = tasks.with_deadline(call, [task_id], deadline)
        if idempotency_key is None:
            return Submission(kind, queue, [task_id], call)
        return Submission(kind, queue, [task_id], call, reservation(idempotency_key, task_id, kind, text))

    def _many(
        self, kind: str, payloads: Iterable[Mapping[str, Any]], *, task_ids: Sequence[str] | None = None,
        title: str | None = None, queue: str | None = None, priority: int = 0, delay_s: float = 0.0,
        max_attempts: int | None = None, deadline_s: float | None = None,
    ) -> Submission:  # fmt: skip
        handler = self._handler(kind)
        _check_deadline(deadline_s)
        payloads = list(payloads)
        ids = checked_ids(task_ids, len(payloads))
        queue = queue or (handler.queue if handler else "default")
        texts = (_payload(kind, handler, payload) for payload in payloads)
        calls = calls_of(
            ids, texts, kind=kind, title=title or kind, queue=queue, priority=priority, delay_s=delay_s,
            max_attempts=_attempts(handler, max_attempts), timeout_s=handler.timeout_s if handler else None,
            budget=handler.budget if handler else None,
            deadline_s=deadline_s or (handler.deadline_s if handler else None),
        )  # fmt: skip
        return Submission(kind, queue, ids, calls)

    def _put(self, asked: Submission, conn: psycopg.Connection[Any] | None) -> list[SubmittedTask]:
        db = self._database()
        former = write(db, asked) if conn is None else write_on(checked_connection(conn), db, asked, self._lanes)
        if former is not None:
            return [SubmittedTask(former, db, created=False, queue=asked.queue)]
        if conn is None and asked.task_ids:
            self.wake(asked.queue)
        return [SubmittedTask(task_id, db, queue=asked.queue) for task_id in asked.task_ids]

    async def _aput(self, asked: Submission, conn: Any) -> list[AsyncSubmittedTask]:
        if conn is None:
            made = await asyncio.to_thread(self._put, asked, None)
            return [AsyncSubmittedTask(each.task_id, each.db, each.created, each.queue) for each in made]
        runner = joined(conn)
        db = await asyncio.to_thread(self._database)
        former = await awrite_on(runner, db, asked, self._lanes)
        if former is not None:
            return [AsyncSubmittedTask(former, db, created=False, queue=asked.queue)]
        return [AsyncSubmittedTask(task_id, db, queue=asked.queue) for task_id in asked.task_ids]

    def _database(self) -> Database:
        """Found once: to read the settings and look for the server takes several times as long as a commit."""
        if self._found is None or not self._found.usable:
            self._found = Database.default(load_settings(dsn=self._dsn))
            self._lanes = set()
        return self._found


def _check_isolation(kind: str, isolation: Isolation, memory_mb: int | None) -> None:
    if isolation not in get_args(Isolation):
        raise ConfigInvalid(f"{kind!r}: isolation is {isolation!r}", hint="use 'none' or 'process'")
    if memory_mb is None:
        return
    if isolation != "process":
        raise ConfigInvalid(f"{kind!r}: memory_mb without a process", hint='add isolation="process"')
    if memory_mb < MEMORY_LEAST_MB:
        raise ConfigInvalid(f"{kind!r}: memory_mb is {memory_mb!r}", hint=f"pass MiB, at least {MEMORY_LEAST_MB}")


def _check_deadline(deadline_s: float | None) -> None:
    if deadline_s is not None and not 0 < deadline_s <= 100 * 366 * 86_400:
        raise ConfigInvalid(f"deadline_s is {deadline_s!r}", hint="pass seconds, more than 0, at most a century")


def _payload(kind: str, handler: Handler | None, payload: Mapping[str, Any]) -> str:
    body = dict(payload)
    if handler is not None:
        bind(kind, handler.function, body)
    return canonical_text(body, what="payload")


def _attempts(handler: Handler | None, asked: int | None) -> int:
    if asked is None:
        return handler.max_attempts if handler else 5
    if not 1 <= asked <= 1000:
        raise InvalidInput(f"max_attempts is {asked!r}", hint="it takes 1 to 1000")
    return asked
