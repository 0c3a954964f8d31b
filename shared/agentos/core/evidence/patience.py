"""A check that asks somebody else gets an answer within a time, or none."""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from agentos.core.evidence.verdict import Refuted

T = TypeVar("T")


def within(limit_s: float, subject: str, function: Callable[[], T]) -> T:
    """What `function` returns or raises, from a thread of its own.

    Raises Refuted: if it takes longer than `limit_s` seconds. The thread is left to end by itself.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(function())
        except BaseException as error:
            answer.set_exception(error)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), daemon=True, name="agentos-evidence").start()
    try:
        return answer.result(limit_s)
    except TimeoutError:
        if answer.done():
            raise
        raise Refuted(f"{subject} could not be checked within {limit_s:g} s (AGENTOS_EVIDENCE_TIMEOUT_S)") from None
