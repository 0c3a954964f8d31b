"""A handler in a process of its own dies alone, is killed on time, and has its context all the same."""

import os
import signal
import subprocess
import sys

import pytest
from tests.coordinator.daemon import Daemon, until
from tests.worker import isolated_app
from tests.worker.pool import Pool, Sweeping, ended, is_gone

from agentos.core.app import App, TaskContext, TaskHandle
from agentos.store.calls import tasks, timeline
from agentos.store.errors import ConfigInvalid, TaskFailed
from agentos.store.settings import load_settings
from agentos.worker.options import Options

APP = "tests.worker.isolated_app:app"


def worker(pool: Pool, **how: float) -> Daemon:
    return pool.worker(app=APP, concurrency=int(how.get("concurrency", 4)))


def submitted(pool: Pool, kind: str) -> TaskHandle:
    """By a program that knows the handlers: `max_attempts` and `timeout_s` are as declared."""
    program = App(dsn=pool.dsn)
    program.handlers.update(isolated_app.app.handlers)
    return program.submit(kind)


def shown(pool: Pool, handle: TaskHandle) -> str:
    """What `agentos show` says."""
    command = [sys.executable, "-m", "agentos.cli", "show", handle.task_id, "--json"]
    env = {**os.environ, "AGENTOS_DSN": pool.dsn}
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


def pids(pool: Pool, kind: str) -> list[int]:
    return [int(line.split()[1]) for line in pool.effects(kind)]


@pytest.mark.parametrize(("kind", "said"), [
    ("segfaults", "SIGSEGV"), ("bomb", "memory_mb of 256"), ("malloc_bomb", "SIG"), ("exits", "exit code 7"),
    ("never", "timeout_s of 8 and was killed with SIGKILL"),
])  # fmt: skip
def test_its_death_is_a_failure_of_the_attempt_and_of_nobody_else(pool: Pool, kind: str, said: str) -> None:
    daemon = worker(pool)
    neighbour = pool.submit("neighbour")
    pool.until_effect("neighbour")
    handle = submitted(pool, kind)
    with pytest.raises(TaskFailed) as failed:
        handle.result(60)
    assert "the process of the handler died" in str(failed.value)
    assert said in str(failed.value)
    (item,) = pool.db.run(tasks.task_items(handle.task_id))
    assert daemon.until_said('"error_type": "IsolatedHandlerDied"')
    assert item.place == "outcome"
    assert pool.counters(handle) == (1, 1, 0)
    assert all(is_gone(pid) for pid in pids(pool, kind))
    assert said in shown(pool, handle)
    pool.log.with_name("go").touch()
    assert neighbour.result(60) == 1
    assert daemon.process.poll() is None
    if kind == "segfaults":
        assert "last words" in str(failed.value)
        assert daemon.said("last words")


def test_it_dies_with_its_worker_and_so_does_what_left_its_session(pool: Pool, sweeping: Sweeping) -> None:
    daemon = worker(pool)
    handle = pool.submit("stays")
    until(lambda: len(pids(pool, "stays")) == 2, what="both processes")
    found = pids(pool, "stays")
    assert os.getsid(found[0]) != os.getsid(found[1]) != os.getsid(daemon.process.pid)
    os.kill(daemon.process.pid, signal.SIGKILL)
    until(lambda: all(is_gone(pid) for pid in found), what="the end of its processes")
    worker(pool)
    assert handle.result(60) == "second"
    assert pool.counters(handle) == (2, 0, 1)


@pytest.mark.parametrize("kind", ["resumes", "resumes_plain"])
def test_tools_and_checkpoints_are_as_durable_as_in_the_worker(pool: Pool, hurrying: Sweeping, kind: str) -> None:
    worker(pool)
    handle = pool.submit(kind)
    assert handle.result(60) == {
        "snapshot": {"at": 1}, "one": {"did": {"n": 1}}, "two": {"did": {"n": 2}}, "attempt": 2,
    }  # fmt: skip
    assert len(pool.effects("effect")) == 2
    assert pool.repeated("effect") == []
    assert pool.counters(handle) == (2, 1, 0)


@pytest.mark.parametrize("kind", ["waits", "waits_plain"])
def test_a_wait_is_a_row_and_no_process(pool: Pool, hurrying: Sweeping, kind: str) -> None:
    worker(pool)
    handle = pool.submit(kind)
    until(lambda: pool.db.run(tasks.task_items(handle.task_id))[0].place == "waiting", what="the park")
    pool.until_effect("left")
    until(lambda: all(is_gone(pid) for pid in pids(pool, "waits")), what="the end of its process")
    handle.signal("go", {"n": 7})
    assert handle.result(60) == {"n": 7}
    assert len(set(pids(pool, "waits"))) == 2
    assert pool.counters(handle)[1:] == (0, 0)


@pytest.mark.parametrize("kind", ["cleans_up", "cleans_up_slowly", "stubborn"])
def test_a_cancel_reaches_it_and_when_its_grace_is_over_sigkill_does(pool: Pool, kind: str) -> None:
    daemon = worker(pool)
    handle = pool.submit(kind)
    pool.until_effect("running")
    handle.cancel()
    assert ended(handle) == "cancelled"
    until(lambda: all(is_gone(pid) for pid in pids(pool, "running")), what="the end of its process")
    assert len(pool.effects("cleaned")) == (0 if kind == "stubborn" else 1)
    assert not daemon.said("left to itself")


def test_a_drain_leaves_it_at_its_checkpoint_and_charges_nothing(pool: Pool) -> None:
    daemon = worker(pool)
    handle = pool.submit("drains")
    pool.until_effect("running")
    daemon.process.send_signal(signal.SIGTERM)
    daemon.until_said('"draining"')
    pool.log.with_name("draining").touch()
    assert daemon.process.wait(20) == 0
    assert not pool.effects("went")
    worker(pool)
    assert handle.result(60) == {"at": 1}
    assert pool.counters(handle)[1:] == (0, 0)


@pytest.mark.parametrize("kind", ["everything", "everything_plain"])
def test_every_call_of_its_context_goes_through_and_no_credential_does(
    pool: Pool, hurrying: Sweeping, kind: str
) -> None:
    worker(pool)
    handle = pool.submit(kind)
    result = handle.result(60)
    assert result["own"]["arguments"] == {"x": 1}
    assert result["own"]["key"] > 0
    assert (result["made"], result["streamed"], result["squares"]) == ("HI", True, [4, 9])
    assert "ctx.transaction cannot be had" in result["refused"]
    assert result["secrets"] == []
    told = {event.event for event in pool.db.run(timeline.task_events(handle.task_id, 200))}
    assert {"log", "progress"} <= told


def test_its_errors_are_what_they_were_there(pool: Pool) -> None:
    worker(pool)
    handle, unstorable = submitted(pool, "hopeless"), submitted(pool, "unstorable")
    with pytest.raises(TaskFailed, match="give up"):
        handle.result(60)
    assert pool.counters(handle)[1] == 1
    with pytest.raises(TaskFailed, match="result of the handler"):
        unstorable.result(60)


def test_a_worker_that_cannot_name_the_app_refuses_to_start() -> None:
    app = App()

    @app.task("k", isolation="process")
    async def k(_ctx: TaskContext) -> None: ...

    with pytest.raises(ConfigInvalid, match="no reference") as refused:
        Options(load_settings(dsn="postgresql://nowhere"), app)
    assert "--app module:app" in str(refused.value)


@pytest.mark.parametrize("how", [{"memory_mb": 512}, {"isolation": "process", "memory_mb": 16}, {"isolation": "vm"}])
def test_a_declaration_that_makes_no_sense_is_refused(how: dict[str, object]) -> None:
    with pytest.raises(ConfigInvalid):
        App().task("k", **how)  # type: ignore[arg-type]
