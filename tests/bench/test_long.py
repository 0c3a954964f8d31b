"""`make bench-long` in its quick mode, and its plots."""

import threading
from typing import Any
from xml.etree import ElementTree

import psycopg
import pytest
from bench.bed import Bed
from bench.long import backlog, pin
from bench.long.backlog import Depth
from bench.measure import Series

from bench import plot

ALONE = {"drain with none scheduled", "drain by a worker of one lane"}


def test_a_pinned_horizon_is_observed_and_figured(database_dsn: str, conn: psycopg.Connection[Any]) -> None:
    course = pin.observe(Bed(database_dsn, quick=True, looker=conn), 0.05, threading.Event())
    assert set(course.lines) == {pin.CONTROL, pin.READER, pin.WRITER}
    assert all(line.done() > 0 for line in course.lines.values())
    figures = {figure.name: figure for figure in pin.figures(course)}
    assert figures["a reader pins, claim p99"].value > 0
    assert figures["a writer pins, items done under the pin"].value > 0


def test_a_run_that_is_stopped_at_once_still_has_what_came_before(
    database_dsn: str, conn: psycopg.Connection[Any]
) -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    course = pin.observe(Bed(database_dsn, quick=True, looker=conn), 0.2, stop)
    assert list(pin.figures(course))


def test_a_plot_is_well_formed_and_has_a_line_per_series() -> None:
    svg = plot.lines("a < b", "x", "y", {"one": [(0, 1), (1, 2)], "two": [(0, 3)]})
    root = ElementTree.fromstring(svg)  # noqa: S314  ours
    assert len(root.findall("{http://www.w3.org/2000/svg}polyline")) == 2
    with pytest.raises(ValueError, match="nothing to draw"):
        plot.lines("empty", "x", "y", {"one": []})


def test_a_drain_beside_what_waits_is_figured_beside_one_with_nothing_waiting(
    database_dsn: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "TURNS", 4)
    monkeypatch.setattr(backlog, "TURN_S", 0.5)
    any_series = Series(backlog.ISSUE, "any", "items/s", (1.0,))
    depth = Depth(1, any_series, any_series, [1.0])
    figures = list(backlog.figures(Bed(database_dsn, quick=True, looker=conn), [depth]))
    compared = {figure.name: figure.baseline for figure in figures if figure.ratio and figure.baseline in ALONE}
    assert compared == {
        "drain with 250,000 scheduled": "drain with none scheduled",
        "drain by a worker of 1,000 lanes": "drain by a worker of one lane",
    }
    assert all(figure.value > 0 for figure in figures)
