"""`python -m tests.crash.stubborn_worker`: a worker that believes it is alive whatever its beat says, so that only the
database is left to refuse what it writes.
"""

import asyncio

from agentos.core.presence import Heartbeat
from agentos.worker.__main__ import main
from agentos.worker.process import Worker


def _believe() -> None:
    Heartbeat.trusted = property(lambda _: True)  # type: ignore[method-assign,assignment]
    Heartbeat.lost = property(lambda _: False)  # type: ignore[method-assign,assignment]
    Heartbeat._declared_dead = lambda _: None  # type: ignore[method-assign,assignment]

    async def not_told(worker: Worker) -> None:
        await worker._completions.flush()  # as one that is told does: the claims of a dead worker are all refused
        await asyncio.sleep(0.1)

    Worker._drop_everything = not_told  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    _believe()
    main()
