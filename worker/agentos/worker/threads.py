"""Threads for code that blocks: plain handlers, plain tools, evidence checks; and back from any thread to the loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


def on_loop(told: Callable[P, object]) -> Callable[P, None]:
    """`told` for other threads: it runs soon, on the event loop of who asks for this."""
    loop = asyncio.get_running_loop()

    def tell(*args: P.args, **kwargs: P.kwargs) -> None:
        loop.call_soon_threadsafe(lambda: told(*args, **kwargs))

    return tell


class DaemonThreads(ThreadPoolExecutor):
    """A daemon thread for each call: one that never returns takes no place in a pool and does not keep the process from
    ending. The event loop's default executor, which has to be a ThreadPoolExecutor.
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """Start it now."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():  # whoever asked was cancelled before this thread began
                return
            try:
                result = fn(*args, **kwargs)
            except StopIteration as exc:  # asyncio cannot carry it, and who waits would wait for ever
                future.set_exception(RuntimeError(f"StopIteration out of a thread: {exc}"))
            except BaseException as exc:  # carried to whoever waits, whatever it is
                future.set_exception(exc)
            else:
                future.set_result(result)

        Thread(target=run, name="agentos-thread", daemon=True).start()
        return future
