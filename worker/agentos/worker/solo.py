"""Child processes for items that took their process down once: each runs alone until it passes or is quarantined.

A child is an ordinary worker with `--solo`: it claims from the solo lanes only, one item at a time, and leaves when
there are none. A poison item then kills its child and nobody else.

After the loss of many workers the start of these processes is what their items would wait for. So they are started
while the TTL of the lost ones runs out, and forked from a server process that has imported agentos and nothing of the
user's: an interpreter that imports it anew needs most of a second of a core.

Every worker sees the same items wait. Who starts processes for them is left to chance: about two are started for one
item, not one by each worker of the fleet. Twenty on one host kept both cores busy for ten seconds.
"""

import asyncio
import functools
import math
import os
import random
import signal
from typing import TYPE_CHECKING

from agentos.core.logs import get_logger
from agentos.core.process import monotonic
from agentos.store.calls.workers import AtRisk

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext
    from multiprocessing.process import BaseProcess

log = get_logger(__name__)

NEXT_S = 0.4
"""Work that still waits after this long gets more children, twice as many as the last time."""
FORGET_S = 5.0
STOP_S = 120.0
"""A child that is told to drain and is still there after this long is stuck in a call that no signal ends."""
DRAIN_SIGNAL = signal.SIGUSR2
"""Tells a child to drain. Not SIGTERM: it may get that as well, from whoever signals the whole group, and a second one
means now."""


class SoloChildren:
    """At most `limit` children of this worker. `argv`: its own options, which they get too; none: never any."""

    def __init__(self, argv: tuple[str, ...] | None, limit: int) -> None:
        self._argv = argv
        self._limit = limit
        self._children: list[BaseProcess] = []
        self._started_at = -FORGET_S
        self._burst = 1
        self._workers = 1
        self._starting: asyncio.Task[None] | None = None

    def wanted(self) -> None:
        """Items wait that must run alone: how many is not known, so ever more children are started for them."""
        since_s = monotonic() - self._started_at
        if since_s > NEXT_S:
            self._burst = 1 if since_s > FORGET_S else self._burst * 2
            self._started_at = monotonic()
            if count := self._share(self._burst):
                self._start(len(self._living()) + count)

    def prepare(self, risk: AtRisk) -> None:
        """So many items may soon have to run alone: their processes are there when they do."""
        self._workers = max(risk.workers, 1)
        if count := self._share(risk.leases):
            self._start(count)

    def _share(self, items: int) -> int:
        """For how many of so many items this worker starts processes; of a large fleet two workers do for one item."""
        share = items / self._workers
        return math.ceil(share) if share >= 1 else int(random.random() < 2 * share)

    def _living(self) -> "list[BaseProcess]":
        self._children = [child for child in self._children if child.is_alive()]
        return self._children

    def _start(self, count: int) -> None:
        missing = min(count, self._limit) - len(self._living())
        if self._argv is not None and missing > 0 and (self._starting is None or self._starting.done()):
            self._starting = asyncio.create_task(self._fork(self._argv, missing))

    async def _fork(self, argv: tuple[str, ...], count: int) -> None:
        for _ in range(count):
            child = _forking().Process(target=_child, args=(argv,), name="agentos-solo")
            try:
                await asyncio.to_thread(child.start)  # the first one waits for the server's imports
            except (OSError, EOFError) as exc:
                log.warning("no process for items that must run alone; trying again", error=str(exc))
                break
            self._children.append(child)
            log.info("started a process for items that must run alone", pid=child.pid)
        self._started_at = monotonic()

    async def stop(self) -> None:
        """Tell the children to drain and wait for them."""
        if self._starting:
            await self._starting
        self.signal(DRAIN_SIGNAL)
        await asyncio.gather(*(asyncio.to_thread(child.join, STOP_S) for child in self._children))
        for child in self._living():
            log.warning("a child does not end; killing it", pid=child.pid)
            child.kill()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every child."""
        for child in self._living():
            if child.pid:
                os.kill(child.pid, number)


@functools.cache
def _forking() -> "ForkServerContext":
    import multiprocessing  # noqa: PLC0415  1 MiB that most workers never need

    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["agentos.worker.lean"])
    return forking


def _child(argv: tuple[str, ...]) -> None:
    from agentos.worker.lean import cli  # noqa: PLC0415  it imports this module

    cli(args=[*argv, "--solo"])
