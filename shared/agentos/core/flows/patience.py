"""Asking again when the database did not answer: for calls that say the same however often they are made."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import TypeVar
from uuid import UUID

from agentos.store.errors import AgentOSError, DatabaseUnavailable
from agentos.store.run import Call, Flow, Sleep, do

T = TypeVar("T")

OUTAGE_WAITS_S = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between the tries of one call: a server that restarts is back by then, and no default lease has ended."""


def insist(call: Call[T]) -> Flow[T]:
    """Run a call that may be repeated, again while the database does not answer.

    Raises DatabaseUnavailable: if it did not answer for about 3 s.
    """
    for wait_s in OUTAGE_WAITS_S:
        try:
            reply: T = yield call  # without the frame of `do`
            return reply
        except DatabaseUnavailable:
            yield Sleep(wait_s)
    return (yield from do(call))


def insist_as(token: UUID, call: Call[T], unanswered: set[UUID]) -> Flow[T]:
    """`insist` on a call that begins something as `token`; noted in `unanswered` if nobody knows whether it did.

    It would look like something that this process does, and for which others, and itself, must wait.
    """
    try:
        return (yield from insist(call))
    except BaseException as exc:
        if isinstance(exc, DatabaseUnavailable) or not isinstance(exc, Exception):
            unanswered.add(token)
        raise


def insist_on_record(call: Call[T]) -> Flow[T]:
    """`insist` on a call that records what was done or paid. A cancellation that cuts it off takes effect when it was
    made once more: without its record a tool call is in doubt, and a model's output is paid again.
    """
    try:
        return (yield from insist(call))
    except asyncio.CancelledError:
        with suppress(AgentOSError):
            yield from do(call)
        raise


def growing_waits(longest_s: float = 0.25) -> Iterator[float]:
    """Seconds between two looks at what somebody else is doing: 0.01 s growing to `longest_s`."""
    wait_s = 0.01
    while True:
        yield wait_s
        wait_s = min(wait_s * 1.6, longest_s)
