"""Who of a fleet starts processes for items that must run alone."""

import random

import pytest

from agentos.store.calls.workers import AtRisk
from agentos.worker import solo
from agentos.worker.solo import SoloChildren


def asked(children: SoloChildren, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What it starts, instead of starting it."""
    counts: list[int] = []
    monkeypatch.setattr(children, "_start", counts.append)
    return counts


def test_a_worker_by_itself_prepares_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    children = SoloChildren(("--app", "x:y"), 8)
    counts = asked(children, monkeypatch)
    children.prepare(AtRisk(leases=3, workers=1))
    children.wanted()
    assert counts == [3, 1]


def test_of_a_fleet_about_two_start_a_process_for_one_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", iter([n / 100 for n in range(200)]).__next__)
    started = []
    for _ in range(100):
        children = SoloChildren(("--app", "x:y"), 8)
        counts = asked(children, monkeypatch)
        children.prepare(AtRisk(leases=1, workers=100))
        started += counts
    assert started == [1, 1]


def test_who_was_not_chosen_is_asked_again_with_twice_the_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(solo, "monotonic", lambda: now[0])
    monkeypatch.setattr(random, "random", lambda: 0.5)
    children = SoloChildren(("--app", "x:y"), 8)
    counts = asked(children, monkeypatch)
    children.prepare(AtRisk(leases=0, workers=16))
    for _ in range(4):  # 2, 4, 8, 16 of 16
        children.wanted()
        children.wanted()  # too soon: nothing more
        now[0] += solo.NEXT_S + 0.01
    assert counts == [1]
