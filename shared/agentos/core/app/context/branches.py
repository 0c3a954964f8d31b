"""Whether a handler does anything but wait, seen from the tasks of the event loop.

The item of a handler that awaits branches (`asyncio.gather`, `asyncio.TaskGroup`, `asyncio.wait`, a task) may be given
up only when every one of them waits: the others would be cut off. What cannot be seen through (a library's own
future, `asyncio.shield`) counts as work: the item then keeps its slot, which is never wrong.
"""

import asyncio
import inspect
from collections.abc import Collection, Iterable
from types import CodeType
from typing import Any

Task = asyncio.Task[Any]


def only_waits(task: Task, waiting: Collection[Task]) -> bool:
    """Whether `task` is one of `waiting`, has ended, or awaits nothing but such tasks."""
    if task.done() or task in waiting:
        return True
    joined = _joined(task)
    return joined is not None and all(isinstance(each, asyncio.Task) and only_waits(each, waiting) for each in joined)


def _joined(task: Task) -> Iterable[Any] | None:
    """What it waits to end; None: it does something else."""
    future = getattr(task, "_fut_waiter", None)
    if isinstance(future, asyncio.Task):
        return (future,)
    children = getattr(future, "_children", None)  # of asyncio.gather
    if children is not None:
        return tuple(children)
    innermost = task.get_coro()
    while inspect.iscoroutine(getattr(innermost, "cr_await", None)):
        innermost = innermost.cr_await  # type: ignore[union-attr]
    frame = getattr(innermost, "cr_frame", None)
    if frame is None or future is None:
        return None
    if frame.f_code in _GROUPS:
        return tuple(frame.f_locals["self"]._tasks)
    return tuple(frame.f_locals["fs"]) if frame.f_code is _WAIT else None


def _codes(*names: str) -> frozenset[CodeType]:
    return frozenset(getattr(asyncio.TaskGroup, name).__code__ for name in names if hasattr(asyncio.TaskGroup, name))


_GROUPS = _codes("__aexit__", "_aexit")
_WAIT: CodeType = asyncio.tasks._wait.__code__  # type: ignore[attr-defined]
