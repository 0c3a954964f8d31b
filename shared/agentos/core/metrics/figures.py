"""What a health port tells of a process at /metrics. The page, and Prometheus' client with it, is made when it is first
asked for, in a thread: neither memory nor the start of a worker pays for it before.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Optional

from agentos.core.metrics.names import Metric
from agentos.core.metrics.readings import Reading

if TYPE_CHECKING:
    from agentos.core.metrics.page import Page


@dataclass(slots=True)
class Figures:
    """`metrics`: those that this process has; `read`: what they are now. Read on the event loop, which counts."""

    metrics: tuple[Metric, ...]
    read: Callable[[], Iterable[Reading]]
    look: Callable[[], Awaitable[None]] | None = None
    """Awaited before each read, for what has to be asked elsewhere."""
    _page: Optional["Page"] = None
    _making: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def text(self) -> str:
        """The page now."""
        if self.look is not None:
            await self.look()
        async with self._making:
            page = self._page
            if page is None:
                page = self._page = await asyncio.to_thread(self._make)
        return page.text()

    def _make(self) -> "Page":
        from agentos.core.metrics.page import Page  # noqa: PLC0415  start-up: see above

        return Page(self.metrics, self.read)
