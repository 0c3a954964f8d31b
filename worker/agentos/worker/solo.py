"""Child processes for items that took their process down once: each runs alone until it passes or is quarantined.

A child is an ordinary worker with `--solo`: it claims from the solo lanes only, one item at a time, and leaves when
there are none. A poison item then kills its child and nobody else.
"""

import asyncio
import os
import signal
import sys

from agentos.core.logs import get_logger
from agentos.core.process import monotonic

log = get_logger(__name__)

NEXT_CHILD_S = 1.5
"""Another child is started only when work still waits this long after the last one."""


class SoloChildren:
    """At most `limit` children of this worker."""

    def __init__(self, argv: tuple[str, ...], limit: int) -> None:
        self._argv = argv
        self._limit = limit
        self._children: list[asyncio.subprocess.Process] = []
        self._started_at = -NEXT_CHILD_S

    async def wanted(self) -> None:
        """Items wait that must run alone."""
        self._children = [child for child in self._children if child.returncode is None]
        recent = self._children and monotonic() - self._started_at < NEXT_CHILD_S
        if not self._argv or recent or len(self._children) >= self._limit:
            return
        self._started_at = monotonic()
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agentos.worker", *self._argv, "--solo", stdin=asyncio.subprocess.DEVNULL
        )
        log.info("started a process for items that must run alone", pid=child.pid)
        self._children.append(child)

    async def stop(self) -> None:
        """Tell the children to drain and wait for them."""
        for child in self._children:
            if child.returncode is None:
                os.kill(child.pid, signal.SIGTERM)
        await asyncio.gather(*(child.wait() for child in self._children))
