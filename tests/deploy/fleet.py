"""A pool of containers on a database of its own."""

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.engine import APP, IMAGE, Container, Engine

from agentos.core.app import App, TaskHandle
from agentos.store.connect import connect


@dataclass(frozen=True, slots=True)
class Fleet:
    """Workers and coordinators on `database`; what handlers do to the world is below `effects`."""

    engine: Engine
    database: str
    effects: Path

    @property
    def dsn(self) -> str:
        """Of the database, from here."""
        return self.engine.outer_dsn(self.database)

    def start(self, *command: str, image: str = IMAGE, options: Sequence[str] = ()) -> Container:
        """A container on the database. A worker counts as dead after 4 s without a beat."""
        return self.engine.run(
            image, *command,
            options=(
                f"-e=AGENTOS_DSN={self.engine.inner_dsn(self.database)}",
                "-e=AGENTOS_TTL_S=4", "-e=AGENTOS_SWEEP_S=0.2",
                f"-v={APP}:/app:ro", f"-v={self.effects}:/effects", *options,
            ),
        )  # fmt: skip

    def worker(self, *args: str, image: str = IMAGE, options: Sequence[str] = ()) -> Container:
        """A worker that serves."""
        started = self.start("agentos-worker", "--app=load_app:app", *args, image=image, options=options)
        started.until_said('"serving"')
        return started

    def coordinator(self, image: str = IMAGE) -> Container:
        """A coordinator that coordinates."""
        started = self.start("agentos-coordinator", image=image)
        started.until_said('"coordinating"')
        return started

    def submit(self, kind: str, **payload: Any) -> TaskHandle:
        """A task of one item."""
        return App(dsn=self.dsn).submit(kind, payload)

    def rows(self, query: str, *args: Any) -> list[tuple[Any, ...]]:
        """What a query finds now."""
        with connect(self.dsn) as conn:
            return conn.execute(query.encode(), args).fetchall()

    def counters(self, handle: TaskHandle) -> tuple[int, int]:
        """failures and crashes of a task's only item, wherever it is."""
        (found,) = self.rows(
            "SELECT failures, crashes FROM agentos.item_places p JOIN agentos.work_items w USING (item_id)"
            " WHERE w.task_id = %s", handle.task_id,
        )  # fmt: skip
        return found[0], found[1]

    def lines(self) -> list[str]:
        """What handlers did, in order: the idempotency key of the call and what it was."""
        log = self.effects / "log"
        return log.read_text().splitlines() if log.exists() else []


def ask(container: Container, path: str) -> tuple[int, dict[str, Any]]:
    """Status and body of a probe; status 0: nothing answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{container.port()}{path}", timeout=5) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return 0, {}
