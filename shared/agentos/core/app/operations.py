"""What people do to a task, from Python: blocking, and awaited under the same name with an `a` before it."""

import asyncio
import getpass
from collections.abc import Collection, Mapping
from typing import Any

from agentos.core import doubts
from agentos.core.doubts import Resolved
from agentos.core.fork import Fork
from agentos.core.fork import fork as make_fork
from agentos.core.rewind import Rewind
from agentos.core.rewind import rewind as go_back
from agentos.store.calls.doubts import Answer, Doubt, open_doubts
from agentos.store.calls.purge import purge_task
from agentos.store.connect import Database
from agentos.store.run import drive


class Operations:
    """The part of a `TaskHandle` that decides for people."""

    __slots__ = ()
    task_id: str
    db: Database

    def doubts(self) -> tuple[Doubt, ...]:
        """The open questions of this task: calls in doubt, and programs that changed under their record."""
        return self.db.run(open_doubts(self.task_id))

    async def adoubts(self) -> tuple[Doubt, ...]:
        """The same, awaited."""
        return await asyncio.to_thread(self.doubts)

    def resolve(
        self, answer: Answer, result: Any = None, *, call: str | None = None, by: str | None = None
    ) -> Resolved:
        """Answer a question: `done` (with what the call returned), `not_done` (it runs again, under the same
        idempotency key), `continue` (a changed program: what it asks runs anew), `fail` (the item fails).

        `call`: the first characters of a `doubt_id`, if more than one is open. `by`: who says so, default this user.
        Raises AnswerRefused: if it was answered before, or is not in doubt any more.
        """
        return drive(self.db, doubts.resolve(self.task_id, answer, result, call=call, by=by))

    async def aresolve(
        self, answer: Answer, result: Any = None, *, call: str | None = None, by: str | None = None
    ) -> Resolved:
        """The same, awaited."""
        return await asyncio.to_thread(self.resolve, answer, result, call=call, by=by)

    def purge(self, *, by: str | None = None) -> int:
        """Take away what this task and its child tasks were about: payloads, snapshots, calls and what they returned,
        model outputs, questions, logs. What happened stays, with times, hashes, counts and costs. Returns how many
        tasks. `by`: who wants it, default this user.

        Raises TaskOpen: if one of them, or the parent, has not ended. UnknownTask.
        """
        return self.db.run(purge_task(self.task_id, by or getpass.getuser()))

    async def apurge(self, *, by: str | None = None) -> int:
        """The same, awaited."""
        return await asyncio.to_thread(self.purge, by=by)

    def rewind(
        self, to: int, *, dry_run: bool = False, replay: Collection[str] = (), re_execute: Collection[str] = (),
        stub: Mapping[str, Any] | None = None, by: str | None = None,
    ) -> Rewind:  # fmt: skip
        """Go back to the checkpoint with the sequence number `to` (0: the beginning); it goes on from there.

        `dry_run`: only tell which calls were made after it and what becomes of each. By tool: `replay` (as for every
        tool that is not named), `re_execute`, `stub` {tool: result}. `by`: who wants it, default this user.
        Raises TaskHeld: while an item is held, not in a dry run: cancel the task first. UnknownCheckpoint, UnknownTask.
        InvalidInput: if a tool is named twice, or was not called after the checkpoint.
        """
        return drive(
            self.db,
            go_back(self.task_id, to, dry_run=dry_run, replay=replay, re_execute=re_execute, stub=stub, by=by),
        )

    async def arewind(
        self, to: int, *, dry_run: bool = False, replay: Collection[str] = (), re_execute: Collection[str] = (),
        stub: Mapping[str, Any] | None = None, by: str | None = None,
    ) -> Rewind:  # fmt: skip
        """The same, awaited."""
        return await asyncio.to_thread(
            self.rewind, to, dry_run=dry_run, replay=replay, re_execute=re_execute, stub=stub, by=by
        )

    def fork(
        self, from_seq: int, *, task_id: str | None = None, dry_run: bool = False, replay: Collection[str] = (),
        re_execute: Collection[str] = (), stub: Mapping[str, Any] | None = None, new_outputs: bool = False,
        by: str | None = None,
    ) -> Fork:  # fmt: skip
        """Make a new task that begins at this one's checkpoint `from_seq` (0: the beginning); this one stays as it is,
        whether it has ended or goes on. `app.handle(fork.task_id)` is its handle.

        `task_id`: of the fork, default a new one; with it, saying it again makes no second fork (TaskExists).
        `dry_run`: only tell which calls are recorded and what becomes of each. By tool, of the calls after the
        checkpoint: `replay` (as for every tool that is not named), `re_execute` (under new idempotency keys), `stub`
        {tool: result}. `new_outputs`: models are asked again, and paid. `by`: who wants it, default this user.
        Raises UnknownCheckpoint, UnknownTask, TaskPurged. TaskOpen: if a child task made before the checkpoint has not
        ended. InvalidInput: if a tool is named twice, or was not called after the checkpoint.
        """
        return drive(
            self.db,
            make_fork(
                self.task_id, from_seq, fork_id=task_id, dry_run=dry_run, replay=replay, re_execute=re_execute,
                stub=stub, new_outputs=new_outputs, by=by,
            ),
        )  # fmt: skip

    async def afork(
        self, from_seq: int, *, task_id: str | None = None, dry_run: bool = False, replay: Collection[str] = (),
        re_execute: Collection[str] = (), stub: Mapping[str, Any] | None = None, new_outputs: bool = False,
        by: str | None = None,
    ) -> Fork:  # fmt: skip
        """The same, awaited."""
        return await asyncio.to_thread(
            self.fork, from_seq, task_id=task_id, dry_run=dry_run, replay=replay, re_execute=re_execute, stub=stub,
            new_outputs=new_outputs, by=by,
        )  # fmt: skip
