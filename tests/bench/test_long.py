"""`make bench-long` in its quick mode, and its plots."""

import threading
from typing import Any
from xml.etree import ElementTree

import psycopg
import pytest
from bench.bed import Bed
from bench.long import pin

from bench import plot


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
