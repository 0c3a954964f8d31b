"""Awaited submits of a loop that are alike, in shared commits: what is asked while one is under way goes with the next.

Eight coroutines that submit cost the server half of what eight transactions do, and the loop two thirds. Only those
whose ids were made here: one that is a caller's may have to wait for another transaction's COMMIT, the others with it.
"""

import asyncio
from typing import cast
from weakref import WeakKeyDictionary

from agentos.core.app.shape import Shape
from agentos.core.wake import Waker
from agentos.store.connect import Database
from agentos.store.direct import Form
from agentos.store.writer import Gatherer

Texts = tuple[str, str]
"""A task's id and its payload, sealed."""
MOST_SHAPES = 256
"""Of a loop; what idles goes when there are more."""


class Gathered:
    """Writes submits of any loop to a database and has the workers told."""

    def __init__(self, db: Database, waker: Waker) -> None:
        self._db, self._waker = db, waker
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, _Alike]] = WeakKeyDictionary()

    async def put(self, shape: Shape, texts: Texts) -> None:
        """Write one, whose shape has a form. Raises as `Waker.aput`."""
        loop = asyncio.get_running_loop()
        if (known := self._loops.get(loop)) is None:
            known = self._loops[loop] = {}
        if (alike := known.get(id(shape))) is None:
            alike = known[id(shape)] = _Alike(self._db, self._waker, shape)
            if len(known) > MOST_SHAPES:
                self._loops[loop] = {key: each for key, each in known.items() if not each.submits.idle or each is alike}
        await alike.submits.put(texts)


class _Alike:
    """Submits of one shape, which it keeps, so that its id is no other's."""

    def __init__(self, db: Database, waker: Waker, shape: Shape) -> None:
        self._db, self._waker, self._shape = db, waker, shape
        self.submits: Gatherer[Texts] = Gatherer(self._one, self._many, _size)

    async def _one(self, texts: Texts) -> None:
        await self._waker.aput(self._db, cast("Form", self._shape.form), texts, self._shape.queue)

    async def _many(self, all_of: list[Texts]) -> list[None]:
        ids, payloads = zip(*all_of, strict=True)
        filled = (f"{{{','.join(ids)}}}", f"[{','.join(payloads)}]")  # ids that were made here need no quotes
        await self._waker.aput(self._db, cast("Form", self._shape.many), filled, self._shape.queue)
        return [None] * len(all_of)


def _size(texts: Texts) -> int:
    return len(texts[1])
