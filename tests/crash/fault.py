"""Faults on purpose, inside a worker process: at the n-th time a point is passed the process dies, or a reply is lost.

FAULT="complete before 1": the process kills itself -9 before the first call of agentos.complete is sent.
FAULT="ledger_finish after 2": after the commit of the second. FAULT="claim lost 1": the reply of the first is dropped.
Several are joined by ";".
Points are the SQL functions that AsyncDatabase runs, and what the handlers of tests/worker/app.py name.
"""

import os
import re
import signal
from collections import Counter
from typing import Any

FAULTS = {tuple(each.split()) for each in os.environ.get("FAULT", "").split(";") if each}
passed: Counter[tuple[str, str]] = Counter()


def is_now(point: str, when: str) -> bool:
    """Whether a fault is meant for here, this time."""
    passed[point, when] += 1
    return (point, when, str(passed[point, when])) in FAULTS


def fault(point: str, when: str) -> None:
    """Die here, if here is where."""
    if is_now(point, when):
        os.kill(os.getpid(), signal.SIGKILL)


def install() -> None:
    """Make every call that an AsyncDatabase runs pass two points."""
    from agentos.store import connect, run  # noqa: PLC0415  handlers read this module too, and need nothing of it

    arun_call = run.arun_call

    async def faulty(conn: Any, call: Any) -> Any:
        found = re.search(r"agentos\.(\w+)", call.sql)
        points = [found.group(1) if found else "", *call.parts]  # a batch passes the points of each call in it
        for point in points:
            fault(point, "before")
        reply = await arun_call(conn, call)
        if "claim" in points and not getattr(reply, "items", ()):
            points.remove("claim")  # only a claim that took something counts
        for point in points:
            fault(point, "after")
        lost = [is_now(point, "lost") for point in points]  # each of them counts
        if any(lost):
            raise ConnectionError("the reply is lost, on purpose")
        return reply

    connect.arun_call = faulty  # type: ignore[attr-defined]
    _artifacts()


def _artifacts() -> None:
    """Points around and amid the writing of an artifact: FAULT="artifact during 1"."""
    from agentos.core.artifacts import local, store  # noqa: PLC0415  as above

    put, copied = store.ArtifactStore.put, local.copied

    def faulty_put(*args: Any) -> Any:
        fault("artifact", "before")
        made = put(*args)
        fault("artifact", "after")
        return made

    def faulty_copied(source: Any, write: Any) -> str:
        def half(chunk: bytes) -> None:
            write(chunk[: len(chunk) // 2])
            fault("artifact", "during")
            write(chunk[len(chunk) // 2 :])

        return copied(source, write if write is len else half)

    store.ArtifactStore.put = faulty_put  # type: ignore[method-assign,assignment]
    store.copied = local.copied = faulty_copied  # type: ignore[attr-defined]
