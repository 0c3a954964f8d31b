"""One call of the engine by itself: killed around its commit it has done all of it or nothing; it may be said again."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import sql

from agentos.core.process import host, new_worker_id
from agentos.store.calls import items, tasks, workers
from agentos.store.calls.items import ClaimedItem
from agentos.store.connect import Database
from agentos.store.errors import AgentOSError
from agentos.store.run import Call
from agentos.store.schema import in_schema, schema
from agentos.testing.crash import CrashPoint

T = TypeVar("T")

KIND = "crashtest"
"""Of the items of a stage: no app has a handler for it, so no other cell works on them."""
TTL_S = 86_400.0


@dataclass(slots=True)
class Stage:
    """What a transition finds: names and ids of its own, in a database where others play, too.

    `name`: also the queue of its items. `kept`: what `arrange` has for the act.
    """

    db: Database
    name: str
    worker_id: int = field(default_factory=new_worker_id)
    kept: dict[str, Any] = field(default_factory=dict)
    lanes: tuple[int, ...] = ()

    @property
    def task_id(self) -> str:
        """Of its first task."""
        return self.ids(1)[0]

    def ids(self, count: int) -> list[str]:
        """Of its tasks."""
        return [f"{self.name}-{n}" for n in range(count)]

    def run(self, call: Call[T]) -> T:
        """Something that is to be there before, or looked at after."""
        return self.db.run(call)

    def see(self, query: LiteralString, *args: Any) -> tuple[Any, ...]:
        """The first row of a query."""
        with self.db.connection() as conn:
            return psycopg.RawCursor(conn).execute(in_schema(query), args).fetchone() or ()

    def damage(self, statement: LiteralString, *args: Any) -> None:
        """What only a restored or hand-edited database has: a row changed past the engine."""
        with self.db.connection() as conn:
            conn.execute(in_schema(statement), args)

    def drop_table(self, name: str) -> None:
        """A table that was never made."""
        with self.db.connection() as conn:
            conn.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(schema(), name)))

    def make_day(self, parent: str, day: datetime) -> str:
        """A partition of a former day. Returns its name."""
        name = f"{parent}_{day:%Y%m%d}"
        with self.db.connection() as conn:
            conn.execute(
                sql.SQL("CREATE TABLE {} PARTITION OF {} FOR VALUES FROM (false, {}) TO (false, {})").format(
                    sql.Identifier(schema(), name), sql.Identifier(schema(), parent), day, day + timedelta(days=1)
                )
            )
        return name

    def submit(self, count: int = 1) -> None:
        """Tasks of one item each."""
        self.run(tasks.submit_many(self.ids(count), KIND, "a crash test", ["{}"] * count, queue=self.name))

    def register(self, worker_id: int | None = None) -> None:
        """A worker that lives for a day."""
        self.run(registration(self, worker_id or self.worker_id))
        self.lanes = self.run(workers.lanes_of([self.name], [KIND]))

    def hold(self, count: int = 1) -> tuple[ClaimedItem, ...]:
        """Tasks whose items its worker has claimed."""
        self.submit(count)
        self.register()
        held = self.run(items.claim(self.worker_id, 0, self.lanes, count)).items
        self.kept["held"] = held
        return held

    @property
    def held(self) -> Sequence[ClaimedItem]:
        """What `hold` claimed."""
        found: Sequence[ClaimedItem] = self.kept["held"]
        return found

    def places(self, task_id: str | None = None) -> list[tuple[str, int, int, int]]:
        """Where the items of its task are, and what was charged: place or outcome, attempts, failures, crashes."""
        rows = self.run(tasks.task_items(task_id or self.task_id))
        return [(row.status or row.place, row.attempt, row.failures, row.crashes) for row in rows]


def registration(stage: Stage, worker_id: int) -> Call[None]:
    """The call by which a worker of the stage's queue begins to live."""
    return workers.register_worker(
        worker_id, label=stage.name, host=host(), pid=0, process="", version="", role="worker", ttl_s=TTL_S,
        serves=json.dumps({"queues": [stage.name], "kinds": [KIND], "concurrency": 1}),
    )  # fmt: skip


def _nothing(_stage: Stage) -> None:
    """There is nothing to arrange."""


@dataclass(frozen=True, slots=True)
class Transition:
    """`act(stage, db)` is what the process dies of: it makes `calls` (default: the one it is named by), each of which
    commits, but for those `inside` a transaction. `look` tells what there is to see of it, and `becomes` what that is
    afterwards.

    Whoever says it again afterwards finds it done: the same is to be seen, or he is refused by one of `refused`.
    """

    name: str
    about: str
    act: Callable[[Stage, Database], object]
    look: Callable[[Stage], Any]
    becomes: Any
    arrange: Callable[[Stage], object] = _nothing
    refused: tuple[type[AgentOSError], ...] = ()
    calls: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """What is not said follows from the name."""
        object.__setattr__(self, "calls", self.calls or (self.name,))

    def may_be_done(self, point: CrashPoint) -> bool:
        """Whether who was killed at `point` may have done it."""
        return point.when != "before" and point.call not in self.inside

    def is_done(self, point: CrashPoint) -> bool:
        """Whether who was killed at `point` has done it."""
        return point.when == "after" and point.call not in self.inside
