"""The matrix by several processes: each plays cells in a schema of its own, where it alone moves the clock."""

import gc
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TypeAlias

from agentos.store.schema import VARIABLE
from agentos.testing.clock import Clock
from agentos.testing.crash import CrashPoint
from agentos.testing.crashtest.matrix import Cell, play_cell
from agentos.testing.crashtest.scenario import Scenario
from agentos.testing.crashtest.transition import Transition
from agentos.testing.pool import Pool

Place = tuple[Scenario | Transition, CrashPoint]
Talk: TypeAlias = "Connection[int, Cell]"
Answering: TypeAlias = "Connection[Cell, int]"
STOPS = (signal.SIGINT, signal.SIGTERM)


def _ignore(_name: str) -> None:
    """Nobody watches."""


def run_crew(
    dsn: str, schemas: Sequence[str], places: Sequence[Place], folder: Path, *, began: Callable[[str], None] = _ignore
) -> Generator[Cell]:
    """One process for each of `schemas`, which are there and empty; a cell as soon as it is known, in no order.

    Each has its cells in the order of `places`. Close the iterator when it is left early: its processes are killed.
    """
    members: list[_Member] = []
    try:
        for name in schemas[: len(places)]:
            members.append(_hire(dsn, name, places, folder, members))
        yield from _lead(members, places, began)
    finally:
        for member in members:
            member.stop()


@dataclass(slots=True)
class _Member:
    """A process of the crew, the leader of a group that has all the processes it forks."""

    pid: int
    talk: Talk

    def stop(self) -> None:
        """Kill its group: whoever its killed workers have started ends with them, which is what is tested here."""
        self.talk.close()
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _lead(members: Sequence[_Member], places: Sequence[Place], began: Callable[[str], None]) -> Iterator[Cell]:
    waiting = deque(enumerate(places))
    busy: dict[object, tuple[Talk, Place]] = {}

    def go_on(talk: Talk) -> None:
        if waiting:
            number, (scenario, point) = waiting.popleft()
            began(f"{scenario.name} {point}")
            busy[talk] = (talk, (scenario, point))
            with suppress(ConnectionError):  # it has ended since its last cell: reading from it tells so
                talk.send(number)

    for member in members:
        go_on(member.talk)
    while busy:
        for ready in wait([talk for talk, _ in busy.values()]):
            talk, place = busy.pop(ready)
            try:
                cell = talk.recv()
            except (EOFError, ConnectionError):
                yield _lost(*place)
            else:
                go_on(talk)
                yield cell


def _lost(scenario: Scenario | Transition, point: CrashPoint) -> Cell:
    """Its process ended under it; the others go on with what is left."""
    return Cell(scenario.name, point.call, point.when, 0.0, "the process that played it ended; see stderr")


def _hire(dsn: str, schema: str, places: Sequence[Place], folder: Path, former: Sequence[_Member]) -> _Member:
    """Ctrl-C reaches no process of the crew, also not while it is made: its leader stops it."""
    ours: Talk
    ours, theirs = Pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        pid = os.fork()
        if pid == 0:
            for talk in (ours, *(member.talk for member in former)):
                talk.close()  # or it would not be told when the leader is gone
            _become(theirs, dsn, schema, places, folder)
        with suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)  # as it does itself: whoever comes first
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    theirs.close()
    return _Member(pid, ours)


def _become(talk: Answering, dsn: str, schema: str, places: Sequence[Place], folder: Path) -> None:
    gc.freeze()  # what the leader had must not be finalized here
    code = 0
    try:
        _leave_the_terminal()
        os.environ.update({VARIABLE: schema, "AGENTOS_DSN": dsn})
        _serve(talk, Pool(dsn, Clock(dsn)), places, folder)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)


def _leave_the_terminal() -> None:
    """A group of its own; a Ctrl-C that came to the former one is forgotten, the next ones are for others."""
    os.setpgid(0, 0)
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _serve(talk: Answering, pool: Pool, places: Sequence[Place], folder: Path) -> None:
    """Play what is asked for, until nobody asks any more."""
    with suppress(EOFError, BrokenPipeError):
        while True:
            scenario, point = places[talk.recv()]
            talk.send(play_cell(pool, scenario, point, folder))
