"""DB_ROW in an SQLite file: shown true, and failing for files, tables and columns that evidence may not name."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.core.evidence.worlds import INJECTIONS

from agentos.core.evidence import Evidence, LocalWorld, Verdict, check


@pytest.fixture(autouse=True)
def registry(tmp_path: Path) -> Path:
    path = tmp_path / "store" / "registry #1?.sqlite"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("""
            CREATE TABLE tasks (task_id TEXT PRIMARY KEY, status TEXT, tries INTEGER, score REAL, "odd "" name" TEXT);
            INSERT INTO tasks VALUES ('task-123', 'completed', 3, 0.5, 'x');
            INSERT INTO tasks VALUES ('task-124', NULL, 9007199254740993, 1, NULL);
            CREATE VIEW task_view AS SELECT * FROM tasks;
            CREATE VIRTUAL TABLE found USING fts5(task_id);
        """)
    return path


def row(
    world: LocalWorld,
    where: dict[str, Any],
    values: dict[str, Any] | None = None,
    table: str = "tasks",
    db_path: str = "store/registry #1?.sqlite",
) -> Verdict:
    expected = {"table": table, "where": where, "values": values or {}}
    return check(Evidence("db_row", "", expected, {"db_path": db_path}), world)


def test_the_row_of_the_quick_reference(world: LocalWorld, registry: Path) -> None:
    assert row(world, {"task_id": "task-123"}, {"status": "completed"}).holds
    assert row(world, {"task_id": "task-123"}, {"status": "completed"}, db_path=str(registry)).holds
    assert row(world, {"TASK_ID": "task-123"}, table="Tasks").holds


@pytest.mark.parametrize(
    ("where", "values"),
    [
        ({"task_id": "task-123"}, {"tries": 3, "score": 0.5}), ({"tries": "3"}, {}), ({"odd \" name": "x"}, {}),
        ({"task_id": "task-124"}, {"status": None, "tries": 9007199254740993}), ({"status": None}, {"score": True}),
    ],
)  # fmt: skip
def test_rows_that_are_there(world: LocalWorld, where: dict[str, Any], values: dict[str, Any]) -> None:
    assert row(world, where, values).holds


@pytest.mark.parametrize(
    ("where", "values", "reason"),
    [
        ({}, {"status": "completed"}, "where is empty"),
        ({"task_id": "task-125"}, {}, "there is no row"),
        ({"task_id": "task-123"}, {"status": "running"}, 'has not status = "running"'),
        ({"task_id": "task-124"}, {"status": "running"}, "has not status"),
        ({"task_id": "task-123"}, {"status": None}, "has not status = null"),
        ({"task_id": "task-124"}, {"tries": 9007199254740992}, "has not tries"),
        ({"task_id": ["task-123"]}, {}, "cannot be"),
        ({"task_id": "task-123"}, {"status": {}}, "cannot be"),
        ({"tries": 10**30}, {}, "too large"),
        ({"rowid": 1}, {}, "has no column"),
        ({"task_id": "task-123"}, {"absent": None}, "has no column 'absent'"),
    ],
)
def test_rows_that_are_not(world: LocalWorld, where: dict[str, Any], values: dict[str, Any], reason: str) -> None:
    verdict = row(world, where, values)
    assert not verdict.holds
    assert reason in verdict.reason


@pytest.mark.parametrize(
    "name", [*INJECTIONS, "sqlite_master", "task_view", "pragma_table_list", "main.tasks", "found_data;"]
)
def test_only_ordinary_tables_and_their_columns_can_be_named(world: LocalWorld, name: str) -> None:
    assert "there is no table" in row(world, {"task_id": "task-123"}, table=name).reason
    assert "has no column" in row(world, {name: "task-123"}).reason
    assert not row(world, {"task_id": name}).holds


def test_a_virtual_table_is_refused(world: LocalWorld) -> None:
    assert "virtual table" in row(world, {"task_id": "task-123"}, table="found").reason


@pytest.mark.parametrize(
    ("db_path", "reason"),
    [
        ("absent.sqlite", "does not exist"), ("store", "not a regular file"), ("fifo", "not a regular file"),
        ("link", "symbolic link"), ("../registry.sqlite", "'..'"), ("/etc/passwd", "outside the evidence roots"),
        ("text", "not a database"), ("file:store/registry.sqlite", "does not exist"), (":memory:", "does not exist"),
    ],
)  # fmt: skip
def test_files_that_evidence_may_not_name(world: LocalWorld, registry: Path, db_path: str, reason: str) -> None:
    (world.cwd / "link").symlink_to(registry)
    (world.cwd / "text").write_text("no database " * 100)
    os.mkfifo(world.cwd / "fifo")
    verdict = row(world, {"task_id": "task-123"}, db_path=db_path)
    assert not verdict.holds
    assert reason in verdict.reason


def test_the_file_is_neither_written_nor_made(world: LocalWorld, registry: Path) -> None:
    before = registry.read_bytes(), sorted(os.listdir(registry.parent))
    row(world, {"task_id": "task-123"})
    row(world, {"task_id": "task-123"}, db_path="store/new.sqlite")
    assert (registry.read_bytes(), sorted(os.listdir(registry.parent))) == before


def test_a_query_that_takes_too_long_is_given_up(world: LocalWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(world.cwd / "store" / "registry #1?.sqlite")) as connection:
        connection.executescript("""
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000)
            INSERT INTO tasks SELECT 'many-' || i, 'x', i, 0, NULL FROM n;
        """)
    monkeypatch.setattr("agentos.core.evidence.sqlite.TIMEOUT_S", 0.0)
    verdict = row(world, {"status": "y"})
    assert not verdict.holds
    assert "interrupted" in verdict.reason
