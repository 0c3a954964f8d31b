"""When the event loop counts as blocked: by the time in which it could have run."""

import time

import pytest

from agentos.worker import vitals
from agentos.worker.vitals import LOOK_S, Vitals

LIMIT_S = 3.0


class Watched:
    """A loop that ticks when told to, on a clock of the test's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.used = 100.0
        monkeypatch.setattr(vitals, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "process_time", lambda: self.used)
        self.vitals = Vitals(LIMIT_S)

    def look(self, after_s: float, *, used_s: float = 0.0) -> bool:
        self.now += after_s
        self.used += used_s
        self.vitals._count()
        return self.vitals._stood_s > LIMIT_S

    def tick(self) -> None:
        self.vitals._ticked = self.now

    def looks_until_blocked(self) -> int:
        return next(n for n in range(1, 1000) if self.look(LOOK_S))


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def test_a_loop_that_stands_for_longer_than_its_limit_is_blocked_and_one_that_ticks_never_is(watched: Watched) -> None:
    for _ in range(100):
        assert not watched.look(LOOK_S)
        watched.tick()
    assert watched.looks_until_blocked() == LIMIT_S / LOOK_S + 1
    watched.tick()
    assert not watched.look(LOOK_S)


def test_after_a_stop_of_the_process_the_loop_has_its_time_before_a_handler_is_blamed(watched: Watched) -> None:
    assert not watched.look(600.0)
    assert watched.looks_until_blocked() > (LIMIT_S - 1) / LOOK_S


def test_a_process_that_gets_little_processor_time_is_not_blamed_for_looks_that_come_late(watched: Watched) -> None:
    assert not any(watched.look(2.0, used_s=0.1) for _ in range(5))


def test_code_that_keeps_looks_away_and_computes_is_found_by_the_first_one(watched: Watched) -> None:
    assert watched.look(10.0, used_s=9.0)


def test_a_tick_amid_a_late_look_is_what_counts(watched: Watched) -> None:
    watched.now += 10.0
    watched.used += 10.0
    watched.tick()
    assert not watched.look(LOOK_S, used_s=LOOK_S)
