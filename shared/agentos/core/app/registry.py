"""`App`: the handlers and tools of one program, and the door to submit tasks to them."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack

import psycopg

from agentos.core.app.gathered import Gathered
from agentos.core.app.handle import AsyncSubmittedTask, SubmittedTask, TaskHandle
from agentos.core.app.handler import Handler, Isolation
from agentos.core.app.limits import Limit, Rate
from agentos.core.app.preparation import many_tasks, one_task
from agentos.core.app.retry import Retry
from agentos.core.app.submission import (
    Lanes,
    OnDuplicate,
    Submission,
    SubmitManyOptions,
    SubmitOptions,
    awrite_on,
    checked_connection,
    traced,
    write,
    write_on,
)
from agentos.core.budget import Budget
from agentos.core.evidence import Evidence, custom
from agentos.core.flows.program import OnChange
from agentos.core.flows.tools import ToolPolicy
from agentos.core.llm.prices import use_prices
from agentos.core.tool import Tool, shell_tool, tool_function
from agentos.core.versions import accepted_versions
from agentos.core.wake import waker_of
from agentos.store.calls.budgets import By, UsageLine, usage_of
from agentos.store.calls.doubts import Doubt, open_doubts
from agentos.store.calls.ledger import OnDoubt
from agentos.store.calls.rewind import DeadTask, dead_tasks
from agentos.store.codec import Codec, use_codec
from agentos.store.connect import Database
from agentos.store.errors import ConfigInvalid, InvalidInput, TaskExists
from agentos.store.joined import joined
from agentos.store.settings import load_settings

if TYPE_CHECKING:
    from agentos.core.app.cron import CronEntry, Misfire

F = TypeVar("F", bound=Callable[..., Any])

RESERVED_KINDS = ("shell", "llm", "plan")


class App:
    """Registers handlers with `@app.task(kind)` and tools with `@app.tool(name)`; `submit` creates tasks.

    `dsn`: the database to submit to; default: AGENTOS_DSN when it first submits, else the embedded one. Workers that
    serve the app use their own setting.
    """

    def __init__(
        self, *, dsn: str | None = None, prices: Mapping[str, Any] | None = None,
        codec: Codec | Sequence[Codec] | None = None,
    ) -> None:  # fmt: skip
        """`prices` of models, as AGENTOS_LLM_PRICES has them. `codec`: seals content before it is stored; of several
        the first, the others only open; default: AGENTOS_CODEC. Both are for this process. Raises ConfigInvalid.
        """
        if codec is not None:
            use_codec(codec)
        if prices is not None:
            use_prices(prices)
        self.handlers: dict[str, Handler] = {}
        self.tools: dict[str, Tool] = {}
        self.cron_entries: dict[str, CronEntry] = {}
        self._dsn = dsn
        self._found: Database | None = None
        self._lanes: Lanes = set()
        """Those that are known to be committed."""

    def task(  # noqa: PLR0913  each by its name
        self, kind: str, *, max_attempts: int | None = None, timeout_s: float | None = None, queue: str = "default",
        budget: Budget | None = None, deadline_s: float | None = None,
        on_change: OnChange = "ask", retry: Retry | None = None, cancel_grace_s: float | None = None,
        isolation: Isolation = "none", memory_mb: int | None = None,
        version: int = 0, accepts: Iterable[int] | None = None,
        concurrency: Limit | None = None, rate: Rate | None = None,
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
        `version`: what tasks submitted with this handler are pinned to, for their life; default 0. `accepts`: which
        versions it can run (`ctx.version` tells it the item's), itself included; default: its own only.
        `concurrency=Limit(5)`, `rate=Rate(100, per_s=60)`: how many of its items all workers together hold at once, and
        claim within any such time; with `key="name"` for each value of that name in the payload. They hold from the
        start of the first worker that serves the handler; what an operator sets (`agentos limit`) stands over them.
        Raises ConfigInvalid: if the kind is taken, reserved (shell, llm, plan), or the limits make no sense.
        """
        if kind in RESERVED_KINDS or kind in self.handlers or not kind:
            raise ConfigInvalid(f"the kind {kind!r} is reserved or taken", hint="give the handler a name of its own")
        if max_attempts is None:
            max_attempts = retry.max_attempts if isinstance(retry, Retry) else 5
        declared = Handler(
            kind, _undecorated, max_attempts, timeout_s, queue, budget, deadline_s, on_change, retry, cancel_grace_s,
            isolation, memory_mb, version, accepted_versions(kind, version, accepts), concurrency, rate,
        )  # fmt: skip

        def register(function: F) -> F:
            self.handlers[kind] = replace(declared, function=function)
            return function

        return register

    def cron(
        self, expression: str, *, timezone: str = "UTC", name: str | None = None, misfire: "Misfire" = "once",
        misfire_max: int = 100, payload: Mapping[str, Any] | None = None, priority: int = 0,
    ) -> Callable[[F], F]:  # fmt: skip
        """Submit a handler by the calendar: above `@app.task`, or alone, which makes it a task of the function's name.

        `expression`: minute, hour, day, month, weekday, by the clock of `timezone`. `name`: default, the kind; task ids
        are made of it and of the time. `payload`: as `submit` takes it; an argument `scheduled_at` is told the time.
        `misfire`: what to do about times that passed for over a minute while no coordinator ran: `once` (the last of
        them), `skip`, `all` (the last `misfire_max`). Raises ConfigInvalid, InvalidArguments.
        """
        from agentos.core.app.cron import cron_decorator  # noqa: PLC0415  start-up: only who has entries pays

        return cron_decorator(
            self, expression, timezone=timezone, name=name, misfire=misfire, misfire_max=misfire_max, payload=payload,
            priority=priority,
        )  # fmt: skip

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

    def evidence(self, name: str) -> Callable[[F], F]:
        """Register how `Evidence(name, description, expected)` is checked: `f(evidence)`, async or plain, looks at the
        world and returns True, False, or (bool, reason). It must only read, and answer within
        AGENTOS_EVIDENCE_TIMEOUT_S: one that does not, raises, or answers with something else means that the claim does
        not hold. For this process; a worker without it refuses the claim, and says so.

        Raises ConfigInvalid: if the name is none (`[a-z][a-z0-9_]*`), built in, or another function's.
        """

        def register(function: F) -> F:
            custom.register(name, function)
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
        idempotency_key: str | None = None, version: int | None = None, tenant: str = "",
        concurrency_key: str | None = None, unique_for_s: float | None = None, unique_key: str | None = None,
        on_duplicate: OnDuplicate = "return",
    ) -> SubmittedTask:  # fmt: skip
        """Create a task of one item. Blocks for one commit.

        `priority`: one step is worth a minute of waiting. `max_attempts`: default, as the handler declares.
        `budget`: what the task may spend on models, instead of
        its handler's. `deadline_s`: seconds from now until it must have ended; then it fails as DeadlineExceeded,
        wherever it is. `conn`: a psycopg connection of the caller's, in whose
        transaction the task is created, with whatever else that writes; no worker is woken then, they find it at their
        next poll after the commit, or `handle.wake()` tells them. `idempotency_key`: said again, the submit
        returns the task of the first time; `created` of the handle tells. `version`: of the handler that must run it;
        default: that of the handler here; without one, the newest that a worker runs. `tenant`: whose it is; workers
        take turns between tenants, so that one's backlog does not delay another. `concurrency_key`: what limits per key
        count it by; default: what the handler declares. `unique_for_s`: so many seconds after a submit of the same
        kind with the same `unique_key` (default: the same payload) this returns the task of that one, or raises
        TaskExists with `on_duplicate="raise"`.
        Raises QueueFull: if its queue has a `max_depth`, and that many items are ready.
        InvalidArguments: if the payload does not fit the handler or the built-in kind. InvalidValue,
        ValueTooLarge: if JSON cannot hold it. TaskExists: if the `task_id` is taken. IdempotencyConflict: if the key
        was used for something else.
        """
        asked = one_task(
            self._handler(kind), kind, payload, task_id=task_id, title=title, queue=queue, priority=priority,
            delay_s=delay_s, max_attempts=max_attempts, budget=budget, deadline_s=deadline_s,
            idempotency_key=idempotency_key,
            version=version, tenant=tenant, concurrency_key=concurrency_key, unique_for_s=unique_for_s,
            unique_key=unique_key, on_duplicate=on_duplicate,
        )  # fmt: skip
        form = asked.plain if conn is None else None
        if form is None:
            return self._put(asked.submission(), conn)[0]
        db = self._database()
        self._waker.put(db, form, asked.texts, asked.shape.queue)
        return SubmittedTask(asked.task_id, db, queue=asked.shape.queue)

    async def asubmit(
        self, kind: str, payload: Mapping[str, Any] | None = None, *, conn: Any = None,
        **options: Unpack[SubmitOptions],
    ) -> AsyncSubmittedTask:  # fmt: skip
        """`submit`, awaited. `conn`: an asyncpg connection, or a psycopg.AsyncConnection, that is in a transaction.

        After the commit `await handle.wake()` tells the workers, or they find it at their next poll. Without `conn` it
        is written on connections of the running loop, and tells the workers itself; several at once share commits,
        unless their `task_id` is given. One that is cancelled while it waits may have made the task.
        """
        asked = one_task(self._handler(kind), kind, payload, **options)
        form = asked.plain if conn is None else None
        if form is None:
            return (await self._aput(asked.submission(), conn))[0]
        db = await self._adatabase()
        if options.get("task_id") is None:
            await self._gathered.put(asked.shape, asked.texts)
        else:
            await self._waker.aput(db, form, asked.texts, asked.shape.queue)
        return AsyncSubmittedTask(asked.task_id, db, queue=asked.shape.queue)

    def submit_many(  # noqa: PLR0913  each by its name
        self, kind: str, payloads: Iterable[Mapping[str, Any]], *, task_ids: Sequence[str] | None = None,
        title: str | None = None, queue: str | None = None, priority: int = 0, delay_s: float = 0.0,
        max_attempts: int | None = None,
        deadline_s: float | None = None, conn: psycopg.Connection[Any] | None = None,
        version: int | None = None, tenant: str = "", concurrency_key: str | None = None,
    ) -> list[SubmittedTask]:  # fmt: skip
        """Create a task of one item for each payload, all of them or none. Blocks for one commit.

        `task_ids`: one for each payload; default, they are made. The rest as in `submit`. In a transaction of the
        caller's (`conn`) they stand behind a savepoint: what is refused here leaves that transaction usable.
        Raises InvalidInput: if there are not as many ids as payloads. InvalidArguments, InvalidValue, ValueTooLarge,
        TaskExists: as `submit`.
        """
        asked = many_tasks(
            self._handler(kind), kind, payloads, task_ids=task_ids, title=title, queue=queue, priority=priority,
            delay_s=delay_s, max_attempts=max_attempts, deadline_s=deadline_s, version=version, tenant=tenant,
            concurrency_key=concurrency_key,
        )  # fmt: skip
        return self._put(asked, conn)

    async def asubmit_many(
        self, kind: str, payloads: Iterable[Mapping[str, Any]], *, conn: Any = None,
        **options: Unpack[SubmitManyOptions],
    ) -> list[AsyncSubmittedTask]:  # fmt: skip
        """`submit_many`, awaited; `conn` as in `asubmit`."""
        return await self._aput(many_tasks(self._handler(kind), kind, payloads, **options), conn)

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
        self._database()
        self._waker.wake(queue)

    def handle(self, task_id: str) -> TaskHandle:
        """A handle on a task submitted earlier, by anybody."""
        return TaskHandle(task_id, self._database())

    def doubts(self, limit: int = 100) -> tuple[Doubt, ...]:
        """The open questions of all tasks, oldest first: answer with `app.handle(doubt.task_id).resolve(...)`."""
        return self._database().run(open_doubts(None, limit))

    async def adoubts(self, limit: int = 100) -> tuple[Doubt, ...]:
        """The same, awaited."""
        return await asyncio.to_thread(self.doubts, limit)

    def dead(self, limit: int = 100) -> tuple[DeadTask, ...]:
        """The tasks that failed, newest first, and what `app.handle(dead.task_id).retry()` would find of each."""
        return self._database().run(dead_tasks(limit))

    async def adead(self, limit: int = 100) -> tuple[DeadTask, ...]:
        """The same, awaited."""
        return await asyncio.to_thread(self.dead, limit)

    def usage(
        self, *by: By, task_id: str | None = None, model: str | None = None, days: int = 30, limit: int = 1000
    ) -> tuple[UsageLine, ...]:
        """Tokens and cost of model calls, spent and saved, told apart by "task", "model" and "day" (none: one sum)."""
        return self._database().run(usage_of(by, task_id=task_id, model=model, days=days, limit=limit))

    async def ausage(
        self, *by: By, task_id: str | None = None, model: str | None = None, days: int = 30, limit: int = 1000
    ) -> tuple[UsageLine, ...]:
        """The same, awaited."""
        return await asyncio.to_thread(self.usage, *by, task_id=task_id, model=model, days=days, limit=limit)

    def _handler(self, kind: str) -> Handler | None:
        """What is registered; None: this app has none of its own, or the kind is built in."""
        handler = self.handlers.get(kind)
        if handler is None and kind not in RESERVED_KINDS and self.handlers:
            raise InvalidInput(
                f"this app has no handler for {kind!r}; it has {', '.join(sorted(self.handlers))}",
                hint="register it with @app.task, or submit through an App() without handlers",
            )
        return handler

    def _put(self, asked: Submission, conn: psycopg.Connection[Any] | None) -> list[SubmittedTask]:
        db = self._database()
        with traced(asked) as sent:
            former = write(db, sent) if conn is None else write_on(checked_connection(conn), db, sent, self._lanes)
        if former is not None:
            _refuse_duplicate(asked, former)
            return [SubmittedTask(former, db, created=False, queue=asked.queue)]
        if conn is None and asked.task_ids:
            self.wake(asked.queue)
        return [SubmittedTask(task_id, db, queue=asked.queue) for task_id in asked.task_ids]

    async def _aput(self, asked: Submission, conn: Any) -> list[AsyncSubmittedTask]:
        if conn is None:
            made = await asyncio.to_thread(self._put, asked, None)
            return [AsyncSubmittedTask(each.task_id, each.db, each.created, each.queue) for each in made]
        runner = joined(conn)
        db = await self._adatabase()
        with traced(asked) as sent:
            former = await awrite_on(runner, db, sent, self._lanes)
        if former is not None:
            _refuse_duplicate(asked, former)
            return [AsyncSubmittedTask(former, db, created=False, queue=asked.queue)]
        return [AsyncSubmittedTask(task_id, db, queue=asked.queue) for task_id in asked.task_ids]

    async def _adatabase(self) -> Database:
        """`_database`, in a thread where it has to be looked for."""
        found = self._found
        return found if found is not None and found.usable else await asyncio.to_thread(self._database)

    def _database(self) -> Database:
        """Found once: to read the settings and look for the server takes several times as long as a commit."""
        if self._found is None or not self._found.usable:
            found = Database.default(load_settings(dsn=self._dsn))
            self._waker = waker_of(found)
            self._gathered = Gathered(found, self._waker)
            self._lanes = set()
            self._found = found  # last: who finds it, in another thread, uses the others
        return self._found


def _refuse_duplicate(asked: Submission, former: str) -> None:
    if asked.on_duplicate == "raise":
        raise TaskExists(
            f"task {former} was submitted under the same key a short time ago",
            hint=f"look at it: agentos show {former}",
        )


def _undecorated() -> None:
    """What a handler is declared with before its function is known: the declaration is checked by itself."""
