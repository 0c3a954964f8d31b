"""Where handlers run: at most `concurrency` at once, out of a queue of items that are held and wait for a slot."""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from agentos.worker.running import Attempt

Run = Callable[[Attempt], Coroutine[Any, Any, None]]


class Slots:
    """A task for each attempt, made when a slot is free. Each starts in the context of the process, never in that of
    the attempt whose slot it gets.

    The queue is in the order of the claims. Prefetched items wait in it until `begun` has reached their claim: the
    database knows by then that they may have started. Their number is durable before the first step of a handler, so a
    process that dies takes no item uncharged that it had begun, and charges none of the claims behind.
    """

    def __init__(self, concurrency: int, run: Run) -> None:
        self.queue: deque[Attempt] = deque()
        self.busy = 0
        self.begun = 0
        self.concurrency = concurrency
        self._run = run
        self._soon = False
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()

    @property
    def free(self) -> int:
        """Slots that nothing runs in."""
        return self.concurrency - self.busy

    @property
    def left_over(self) -> int:
        """How many of the queue wait for a slot; for the others `fill` has one."""
        return max(len(self.queue) - self.free, 0)

    @property
    def starved(self) -> bool:
        """Whether a slot is free and what waits for it may not begin yet."""
        return bool(self.queue) and self.busy < self.concurrency and self.queue[0].claim_no > self.begun

    def to_begin(self, ahead: int) -> list[int]:
        """The claims that must be begun for the next `ahead` items to start."""
        if not self.queue or not ahead:
            return []
        last = self.queue[min(ahead, len(self.queue)) - 1].claim_no
        return list(range(self.begun + 1, last + 1)) if last > self.begun else []

    def fill(self) -> None:
        """Start what may start."""
        queue = self.queue
        while queue and self.busy < self.concurrency:
            try:
                attempt = queue.popleft()
            except IndexError:  # given back while the loop stood still
                return
            if attempt.claim_no > self.begun and attempt.stop is None:
                queue.appendleft(attempt)
                return
            self.busy += 1
            attempt.task = asyncio.Task(
                self._run(attempt), loop=self._loop, name=attempt.item.kind, context=self._context.copy()
            )

    def fill_soon(self) -> None:
        """`fill`, behind what the caller does before it next waits: the server need not stand still meanwhile."""
        if not self._soon:
            self._soon = True
            self._loop.call_soon(self._fill_now)

    def _fill_now(self) -> None:
        self._soon = False
        self.fill()

    def freed(self) -> None:
        """An attempt has left its slot."""
        self.busy -= 1
        self.fill()

    def take_queue(self) -> list[Attempt]:
        """What has not been started leaves the queue, for the caller to give back. Main thread."""
        taken = []
        while True:
            try:
                taken.append(self.queue.popleft())
            except IndexError:
                return taken
