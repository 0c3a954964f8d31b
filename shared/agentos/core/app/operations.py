"""What people do to a task, from Python: blocking, and awaited under the same name with an `a` before it."""

import asyncio
from typing import Any

from agentos.core import doubts
from agentos.core.doubts import Resolved
from agentos.store.calls.doubts import Answer, Doubt, open_doubts
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
