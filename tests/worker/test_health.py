"""Probes over HTTP and by `--healthcheck`, and SIGTERM as PID 1, on real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from tests.coordinator.daemon import Daemon, until
from tests.worker.pid_one import refused
from tests.worker.pool import Pool

from agentos.store.connect import Database, connect
from agentos.store.embedded import EmbeddedServer
from agentos.store.migrate import migrate

ANY_PORT = ("--health-port", "0")


def port_of(daemon: Daemon) -> int:
    return int(json.loads(daemon.until_said('"health"'))["port"])


def ask(port: int, path: str, timeout_s: float = 5.0) -> tuple[int, dict[str, Any]]:
    """Status and body; status 0: no answer in time."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout_s) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except TimeoutError:
        return 0, {}


def healthcheck(*args: str, module: str = "agentos.worker", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, "--healthcheck", *args], capture_output=True, text=True, check=False,
        env={**os.environ, **env}, timeout=30,
    )  # fmt: skip


@pytest.fixture
def silent_dsn() -> Iterator[str]:
    """Of a server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"postgresql://nobody@127.0.0.1:{listening.getsockname()[1]}/none"


def test_a_blocked_loop_answers_no_probe_and_lives_again_when_it_runs(pool: Pool) -> None:
    port = port_of(pool.worker(*ANY_PORT, ttl=60))
    assert ask(port, "/livez")[0] == 200
    handle = pool.submit("numbered", n=1, block_at=1)
    until(lambda: ask(port, "/livez", timeout_s=1)[0] == 0)
    pool.log.with_name("go").touch()
    until(lambda: ask(port, "/livez")[0] == 200)
    assert handle.result(60) == 1


def test_an_outage_makes_it_unready_and_not_dead(own_server: Callable[..., EmbeddedServer], tmp_path: Path) -> None:
    server = own_server({"fsync": "off"})
    dsn = server.ensure_running()
    with connect(dsn) as conn:
        migrate(conn)
    pool = Pool(dsn, tmp_path / "effects.log", Database(dsn))
    try:
        port = port_of(pool.worker(*ANY_PORT))
        until(lambda: ask(port, "/readyz")[0] == 200)
        server.stop(force=True)
        until(lambda: ask(port, "/readyz")[0] == 503)
        assert ask(port, "/livez")[0] == 200
        server.ensure_running()
        until(lambda: ask(port, "/readyz")[0] == 200)
    finally:
        pool.db.close()
        pool.close()


@pytest.mark.unsound("it says to be migrated by a version that does not exist")
def test_a_schema_of_another_version_makes_it_unready(pool: Pool, conn: psycopg.Connection[Any]) -> None:
    worker, coordinator = pool.worker(*ANY_PORT), pool.coordinator(*ANY_PORT)
    coordinator.until_said('"leading"')
    conn.execute("INSERT INTO agentos.migrations (version, name, digest) VALUES (9999, '9999_later.sql', '')")
    for process in (worker, coordinator):
        status, body = ask(port_of(process), "/readyz")
        assert (status, body["ok"]) == (503, False)
        assert "the schema is at version 9999" in body["reasons"][0]
        assert ask(port_of(process), "/livez")[0] == 200


def test_a_draining_worker_says_so(pool: Pool) -> None:
    worker = pool.worker(*ANY_PORT, grace=60)
    port = port_of(worker)
    pool.submit("wait")
    pool.until_effect("waiting")
    worker.signal(signal.SIGTERM)
    worker.until_said('"draining"')
    assert ask(port, "/readyz") == (503, {"ok": False, "reasons": ["draining"]})
    assert ask(port, "/livez")[0] == 200


def test_a_coordinator_that_waits_for_its_first_connection_lives(pool: Pool) -> None:
    """Without a look at its own waiting it would be restarted after 120 s of an outage."""
    coordinator = Daemon("agentos.coordinator", *ANY_PORT, "--dsn", "postgresql://nobody@127.0.0.1:1/none")
    pool.started.append(coordinator)
    port = port_of(coordinator)
    ages = [ask(port, "/livez")[1]["loop_age_s"]]

    def younger() -> bool:
        ages.append(ask(port, "/livez")[1]["loop_age_s"])
        return bool(ages[-1] < ages[-2])

    until(younger, what="a loop that came round")
    assert ask(port, "/readyz")[0] == 503


@pytest.mark.parametrize("module", ["agentos.worker", "agentos.coordinator"])
def test_the_healthcheck_asks_the_port_of_the_environment(pool: Pool, module: str) -> None:
    process = pool.worker(*ANY_PORT) if module == "agentos.worker" else pool.coordinator(*ANY_PORT)
    port = str(port_of(process))
    asked = healthcheck(module=module, AGENTOS_HEALTH_PORT=port)
    assert (asked.returncode, json.loads(asked.stdout)["ok"]) == (0, True)
    until(lambda: healthcheck("--ready", "--health-port", port, module=module).returncode == 0)
    process.kill()
    asked = healthcheck(f"--health-port={port}", module=module)
    assert asked.returncode == 1
    assert "does not answer" in asked.stderr


def test_the_healthcheck_without_a_port_says_what_to_give() -> None:
    asked = healthcheck()
    assert asked.returncode == 1
    assert "AGENTOS_HEALTH_PORT" in asked.stderr


def test_the_healthcheck_imports_no_driver() -> None:
    """It runs every few seconds on each host."""
    code = (
        "import sys, agentos.worker.__main__ as m\nsys.argv[1:] = ['--healthcheck']\n"
        "try: m.main()\nexcept SystemExit: pass\n"
        "sys.exit('asyncpg' in sys.modules or 'psycopg' in sys.modules or 'typer' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_the_environment_names_the_port_of_the_process(pool: Pool) -> None:
    assert ask(port_of(pool.worker(env={"AGENTOS_HEALTH_PORT": "0"})), "/livez")[0] == 200


needs_namespace = pytest.mark.skipif(bool(refused()), reason=f"no pid namespace here: {refused()}")


def pid_one(daemon: Daemon) -> psutil.Process:
    """The process that is PID 1 within, by the name it has out here, once it listens to SIGTERM."""

    def listening() -> psutil.Process | None:
        for child in psutil.Process(daemon.process.pid).children():
            status = Path(f"/proc/{child.pid}/status").read_text()
            caught = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), 16)
            if caught & 1 << (signal.SIGTERM - 1):
                return child
        return None

    found = until(listening, what="PID 1 that catches SIGTERM")
    assert found is not None
    return found


@needs_namespace
def test_as_pid_1_it_drains_at_sigterm(pool: Pool) -> None:
    container = pool.worker(module="tests.worker.pid_one", grace=20)
    handle = pool.submit("wait")
    pool.until_effect("waiting")
    pid_one(container).send_signal(signal.SIGTERM)
    container.until_said('"draining"')
    pool.log.with_name("go").touch()
    assert container.ended() == 0
    assert handle.result(1) == "told"
    assert pool.row("SELECT pid, state FROM agentos.workers") == (1, "stopped")


@needs_namespace
def test_as_pid_1_it_hears_sigterm_before_it_serves(pool: Pool, silent_dsn: str) -> None:
    container = pool.worker("--dsn", silent_dsn, module="tests.worker.pid_one", wait=False)
    pid_one(container).send_signal(signal.SIGTERM)
    assert container.ended() == 128 + signal.SIGTERM
