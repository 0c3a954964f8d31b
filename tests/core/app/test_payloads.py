"""The payloads of the built-in kinds are checked before anything is written."""

import psycopg
import pytest

from agentos.core.app import App
from agentos.core.task import TaskManager
from agentos.store.connect import Database
from agentos.store.errors import InvalidArguments


@pytest.mark.parametrize(("kind", "payload"), [("shell", {}), ("llm", {"prompt": " "}), ("plan", {"goal": 1})])
def test_one_that_cannot_be_used_is_refused(
    database_dsn: str, db: Database, conn: psycopg.Connection[tuple[int]], kind: str, payload: dict[str, object]
) -> None:
    app = App(dsn=database_dsn)
    for submit in (
        lambda: app.submit(kind, payload), lambda: app.submit_many(kind, [payload]),
        lambda: TaskManager(db).create_task("a title", kind=kind, payload=payload),
    ):  # fmt: skip
        with pytest.raises(InvalidArguments):
            submit()
    assert conn.execute("SELECT count(*) FROM agentos.task_records").fetchone() == (0,)
