"""The coding agent is killed twenty times at random and ends with every effect exactly once."""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from tests.coordinator.daemon import Daemon, close_all, coordinator

from agentos.core.app import App
from agentos.store.calls import tasks, waits
from agentos.store.connect import Database, connect

EXAMPLES = Path(__file__).parents[1] / "examples"
KILLS = 20
FUNCTIONS = ["add", "sub", "mul", "div", "mod", "power", "floor", "least", "most", "both", "either", "shift"]
HOLDER = "SELECT w.pid, h.crashes, h.token FROM agentos.lease_held h JOIN agentos.workers w USING (worker_id)"
HEADWAY = "SELECT 1 FROM agentos.tool_ledger WHERE token = %s AND state = 'finished'"


@pytest.fixture
def workers(database_dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Daemon]]:
    """Two workers and a coordinator; whoever is killed is replaced by its supervisor."""
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES))
    started = [coordinator(database_dsn, "--ttl", "1", "--sweep", "0.1"), worker(), worker()]
    yield started
    close_all(started)


def worker() -> Daemon:
    return Daemon(
        "agentos.worker", "--app", "coding_agent:app", "--ttl", "10", "--beat", "0.3",
        "--poll", "0.1", "--concurrency", "1",
    )  # fmt: skip


@pytest.mark.timeout(400)
def test_killed_twenty_times_it_ends_with_every_effect_exactly_once(
    workers: list[Daemon], database_dsn: str, db: Database, tmp_path: Path
) -> None:
    seed = int(os.environ.get("AGENTOS_TEST_SEED") or random.randrange(2**32))
    print(f"seed {seed}")
    chance = random.Random(seed)
    handle = App(dsn=database_dsn).submit("code", {"workspace": str(tmp_path)})
    killed = 0
    while not (progress := db.run(tasks.task_progress(handle.task_id))).ended:
        if killed < KILLS and (victim := holder(database_dsn)):
            time.sleep(chance.uniform(0, 0.6))  # the randomness itself, not a wait for something
            if victim.crashes < 2 or made_headway(database_dsn, victim):  # the third without headway is quarantine
                killed += kill(victim.pid)
                replace_the_dead(workers)
        elif progress.status == "waiting" and killed < KILLS:  # for its answer: nothing runs, and that may die too
            killed += kill(chance.choice(workers[1:]).process.pid)
            replace_the_dead(workers)
        elif progress.status == "waiting":
            db.run(waits.answer(handle.task_id, approved=True, by="the test"))
        else:
            time.sleep(0.02)
    result = handle.result(0)
    lines = [line.rsplit(" ", 1)[0] for line in (tmp_path / "journal.log").read_text().splitlines()]
    expected = [f"edited {name}" for f in FUNCTIONS for name in (f"{f}.py", f"test_{f}.py")] + ["published calculator"]
    assert result == {"functions": FUNCTIONS}
    assert Counter(lines) == Counter(expected), f"seed {seed}"
    assert killed >= KILLS, f"seed {seed}"


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds the item now."""

    pid: int
    crashes: int
    token: UUID


def holder(dsn: str) -> Holder | None:
    with connect(dsn) as conn:
        row = conn.execute(HOLDER).fetchone()
    return Holder(*row) if row else None


def made_headway(dsn: str, victim: Holder) -> bool:
    with connect(dsn) as conn:
        return conn.execute(HEADWAY, [victim.token]).fetchone() is not None


def kill(pid: int) -> int:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return 1
    return 0


def replace_the_dead(workers: list[Daemon]) -> None:
    for n, daemon in enumerate(workers[1:], 1):
        with suppress(subprocess.TimeoutExpired):
            daemon.process.wait(0.05)
        if daemon.process.poll() is not None:
            daemon.close()
            workers[n] = worker()
