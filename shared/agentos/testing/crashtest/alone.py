"""Playing a transition: a process makes the call and dies, and somebody else says it again."""

import time
from collections.abc import Callable
from typing import Any

from agentos.store import login
from agentos.store.connect import Database
from agentos.testing.crash import CrashPoint, Saboteur
from agentos.testing.crashtest.transition import Stage, Transition
from agentos.testing.fork import in_child
from agentos.testing.pool import Pool
from agentos.testing.soundness import assert_sound

CHILD_S = 60.0
LINGERS_S = 2.0
LOOK_S = 0.002
BUSY = (
    "SELECT bool_or(a.state IS DISTINCT FROM 'idle') FROM pg_stat_activity a"
    " WHERE starts_with(a.application_name, $1::text)"
)
"""Of its sessions: NULL when there is none any more."""


def play(pool: Pool, transition: Transition, point: CrashPoint, name: str) -> None:
    """Raises AssertionError: if something does not hold."""
    stage = Stage(pool.database, name)
    transition.arrange(stage)
    was = transition.look(stage)
    if was == transition.becomes:
        raise AssertionError(f"it proves nothing: {was} is to be seen before it")
    _die(pool, transition, point, stage)
    found = transition.look(stage)
    may_be = _may_be(transition, point, was)
    if found not in may_be:
        raise AssertionError(f"killed {point}, {found} is to be seen, and not {' or '.join(map(str, may_be))}")
    _say_again(transition, point, stage)
    after = transition.look(stage)
    if after != transition.becomes:
        raise AssertionError(f"said again, {after} is to be seen, and not {transition.becomes}")
    assert_sound(pool.dsn)


def _may_be(transition: Transition, point: CrashPoint, was: Any) -> tuple[Any, ...]:
    if transition.is_done(point):
        return (transition.becomes,)
    return (was, transition.becomes) if transition.may_be_done(point) else (was,)


def _die(pool: Pool, transition: Transition, point: CrashPoint, stage: Stage) -> None:
    def victim(tell: Callable[[str], None]) -> None:
        login.APPLICATION = _session(stage)
        Saboteur(point, tell).install()
        transition.act(stage, Database(pool.dsn, max_size=1))

    ended = in_child(victim, timeout_s=CHILD_S)
    if not ended.killed:
        raise AssertionError(f"it never came to {point}")
    if point.when == "during":
        _wait_for_its_session(stage)


def _session(stage: Stage) -> str:
    """How its connections are called; each adds something of its own, and the server takes 63 characters."""
    return f"crashtest {stage.name[-24:]}"


def _wait_for_its_session(stage: Stage) -> None:
    """What was sent is done, or will never be.

    Behind a pooler the session stays, idle: it is not waited for long. One that still works is: it holds its locks.
    """
    idle_until, deadline = time.monotonic() + LINGERS_S, time.monotonic() + CHILD_S
    while (busy := stage.see(BUSY, _session(stage))[0]) is not None:
        now = time.monotonic()
        if now >= deadline or (not busy and now >= idle_until):
            return
        if busy:  # however long the look itself took
            idle_until = now + LINGERS_S
        time.sleep(LOOK_S)


def _say_again(transition: Transition, point: CrashPoint, stage: Stage) -> None:
    try:
        transition.act(stage, stage.db)
    except transition.refused as refusal:
        if not transition.may_be_done(point):
            raise AssertionError(f"it was not done, and is refused: {refusal}") from refusal
    else:
        if transition.refused and transition.is_done(point):
            raise AssertionError("it was done, and is not refused when it is said again")
