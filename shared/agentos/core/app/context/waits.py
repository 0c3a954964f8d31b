"""Waits that cost a row and not a slot: for a time, a signal, a person.

```
ctx.sleep ─ over? ───────────▶ returns
          └ the handler does nothing else ─▶ parked: the handler is left, and called again when it is over
          └ another branch works ──────────▶ waits in the slot, until it is over or every branch waits
```
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from agentos.core.app.context.bound import BlockingBound, Bound
from agentos.core.app.context.branches import only_waits
from agentos.core.flows import waits
from agentos.core.flows.patience import insist
from agentos.core.flows.waits import NEAR_S, Answer, Wait
from agentos.core.parked import Parked
from agentos.core.tracing.step import mark, step
from agentos.store.calls.waits import WaitReply

FIRST_LOOK_S = 0.05
LAST_LOOK_S = 1.0


class Waits(Bound):
    """`ctx.sleep`, `ctx.sleep_until`, `ctx.wait_for`, `ctx.approval`."""

    async def sleep(self, seconds: float) -> None:
        """Wait so many seconds as a row, not in a slot. Less than one second is waited for in place, unrecorded: that
        is cheaper, and after a crash it is waited for again.
        """
        if 0 <= seconds < NEAR_S:
            await asyncio.sleep(seconds)
        else:
            await self._wait_out(waits.sleep(self._scope, seconds, None))

    async def sleep_until(self, until: datetime) -> None:
        """Wait until a moment (with a time zone) by the database's clock. One that has passed returns at once."""
        await self._wait_out(waits.sleep(self._scope, None, until))

    async def wait_for(self, signal: str, *, timeout_s: float | None = None) -> Any:
        """Wait for a signal to this task and return its payload. One that came before is kept; one ends one wait.

        `timeout_s`: seconds, default for ever; counted from the first time this wait was reached, whatever dies since.
        Raises WaitTimeout (a TimeoutError).
        """
        return await self._wait_out(waits.wait_for(self._scope, signal, timeout_s))

    async def approval(
        self, question: str, *, shown: Any = None, options: Sequence[str] | None = None, timeout_s: float | None = None
    ) -> Answer:
        """Ask a person (`agentos approve TASK`) and return the answer; `shown`: JSON of what it is about.

        The answer counts for exactly this question and what was shown: asked again with other content it is a new
        question. `options`: what can be chosen; the answer's `option` is one of them.
        Raises ApprovalRejected: if the answer is no; not caught, it fails the item at once. WaitTimeout.
        """
        return await self._wait_out(waits.approval(self._scope, question, shown, options, timeout_s))  # type: ignore[no-any-return]

    async def _wait_out(self, wait: Wait) -> Any:
        """Ask; while it is not over, park as soon as nothing but waits goes on here. Raises Parked."""
        return await self._wait_as(wait, asyncio.current_task() is self._main)

    async def _wait_as(self, wait: Wait, alone: bool) -> Any:
        """`alone`: it is the handler itself that waits, not a branch of it."""
        with step(f"wait {wait.what}"):
            return await self._waited(wait, alone)

    async def _waited(self, wait: Wait, alone: bool) -> Any:
        this = asyncio.current_task()
        assert this is not None  # noqa: S101
        look_s, looks = FIRST_LOOK_S, 0
        try:
            while True:
                reply = await self._ask(wait, alone)
                if reply.verdict == "finished":
                    mark(replayed=not looks)  # it was over before it was asked for
                    return wait.read(reply.result)
                looks += 1
                self._waiting.add(this)
                self._changed.set()
                if reply.wake_in_s is not None:
                    look_s = min(look_s, max(reply.wake_in_s, 0.0) + 0.001)
                if not self._may_park(alone) or (reply.wake_in_s is not None and reply.wake_in_s <= NEAR_S):
                    await self._look_again(look_s)
                    look_s = min(max(look_s, FIRST_LOOK_S) * 1.6, LAST_LOOK_S)
        finally:
            self._waiting.discard(this)

    async def _ask(self, wait: Wait, alone: bool) -> WaitReply:
        """One at a time: who parks must not end the lease under a branch that is just recording its wait."""
        async with self._asking:
            if self._left:
                raise Parked
            reply = await self._drive(insist(wait.ask(self._may_park(alone))))
            if reply.verdict == "parked":
                self._parked(alone=alone)
                raise Parked
            return reply

    def _may_park(self, alone: bool) -> bool:
        if self._busy:
            return False
        return alone or (self._main is not None and only_waits(self._main, self._waiting))

    async def _look_again(self, pause_s: float) -> None:
        """After a pause, or as soon as another branch has begun to wait."""
        self._changed.clear()
        try:
            async with asyncio.timeout(pause_s):
                await self._changed.wait()
        except TimeoutError:
            return


class BlockingWaits(BlockingBound[Waits]):
    """The same, blocking. What the handler's own thread waits for is parked; a thread that it started keeps the slot
    while it waits.
    """

    def sleep(self, seconds: float) -> None:
        """As `TaskContext.sleep`."""
        if 0 <= seconds < NEAR_S:
            self._wait(self._context.sleep(seconds))
        else:
            self._wait_out(lambda scope: waits.sleep(scope, seconds, None))

    def sleep_until(self, until: datetime) -> None:
        """As `TaskContext.sleep_until`."""
        self._wait_out(lambda scope: waits.sleep(scope, None, until))

    def wait_for(self, signal: str, *, timeout_s: float | None = None) -> Any:
        """As `TaskContext.wait_for`."""
        return self._wait_out(lambda scope: waits.wait_for(scope, signal, timeout_s))

    def approval(
        self, question: str, *, shown: Any = None, options: Sequence[str] | None = None, timeout_s: float | None = None
    ) -> Answer:
        """As `TaskContext.approval`."""
        return self._wait_out(lambda scope: waits.approval(scope, question, shown, options, timeout_s))  # type: ignore[no-any-return]

    def _wait_out(self, make: Callable[[Any], Wait]) -> Any:
        context, alone = self._context, threading.get_ident() == self._thread

        async def waited() -> Any:
            return await context._wait_as(make(context._scope), alone)

        return self._wait(waited())
