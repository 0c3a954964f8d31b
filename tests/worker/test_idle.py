"""What a worker costs when there is nothing to do, and what it answers to probes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.coordinator.daemon import Daemon, until
from tests.worker.pool import Pool

from agentos.store.connect import Database, connect
from agentos.store.embedded import EmbeddedServer
from agentos.store.migrate import migrate
from agentos.testing.databases import forget_process_caches


def test_an_idle_worker_at_the_defaults_asks_at_most_twice_a_second_over_at_most_four_connections(
    own_server: Callable[..., EmbeddedServer], tmp_path: Path
) -> None:
    """Counted in the server's own log: its statistics count autovacuum too, and late."""
    server = own_server({"fsync": "off", "log_statement": "all", "log_line_prefix": "%a "})
    dsn = server.ensure_running()
    with connect(dsn) as conn:
        migrate(conn)
    pool = Pool(dsn, tmp_path / "effects.log", Database(dsn))
    try:
        pool.worker(ttl=15, concurrency=8)
        handles = [pool.submit("quick", n=n) for n in range(50)]
        assert [handle.result(60) for handle in handles] == list(range(50))
        assert connections(pool) <= 4
        began, before = time.monotonic(), statements(server)
        signal.sigtimedwait([], 10.0)  # nothing to wait for: an idle worker is measured by the clock
        rate = (statements(server) - before) / (time.monotonic() - began)
        print(f"an idle worker: {rate:.1f} statements a second")
        assert 0.5 < rate <= 2.0
        assert connections(pool) <= 4
    finally:
        pool.close()


def test_what_was_imported_is_not_looked_through_for_garbage_while_handlers_run(pool: Pool) -> None:
    pool.worker()
    assert pool.submit("frozen").result(60) == [False, True]


def statements(server: EmbeddedServer) -> int:
    """What was executed so far, by anybody who says to be agentos."""
    texts = [path.read_text() for path in (server.status().data_dir).rglob("*.log")]
    return sum(len(re.findall(r"^agentos[-\w ]* LOG:  (?:execute|statement)", text, re.MULTILINE)) for text in texts)


def connections(pool: Pool) -> int:
    """The worker's; the test keeps none but the one that asks."""
    pool.db.close()
    forget_process_caches()
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND application_name LIKE 'agentos%%'"
    )
    return int(until(lambda: pool.row(others)[0]))


def test_probes_tell_whether_it_lives_and_whether_it_serves(pool: Pool) -> None:
    port = free_port()
    worker = pool.worker("--health-port", str(port), grace=30)
    assert (probe(port, "/livez"), probe(port, "/readyz"), probe(port, "/else")) == (200, 200, 404)
    handle = pool.submit("wait")
    pool.until_effect("waiting")
    with pool.db.connection() as locker, locker.transaction():
        locker.execute("SELECT 1 FROM agentos.workers FOR UPDATE")
        until(lambda: probe(port, "/readyz") == 503)
        assert probe(port, "/livez") == 200
    until(lambda: probe(port, "/readyz") == 200)
    worker.signal(signal.SIGTERM)
    until(lambda: probe(port, "/readyz") == 503)
    assert probe(port, "/livez") == 200
    pool.log.with_name("go").touch()
    assert handle.result(60) == "told"
    assert worker.ended() == 0


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["--ttl", "3", "--beat", "2"], 2, "AGENTOS_BEAT_S"),
        (["--app", "tests.worker.app"], 2, "module:name"),
        (["--app", "no_such_module:app"], 2, "cannot import"),
        (["--app", "tests.worker.app:LOG"], 2, "not an App"),
        (["--allow-kind", "rockets"], 2, "rockets"),
        (["--dsn", "postgresql://nobody@127.0.0.1:1/none"], 3, "cannot connect"),
    ],
)
def test_what_cannot_be_used_is_said_with_the_fix(pool: Pool, args: list[str], code: int, says: str) -> None:
    worker = Daemon("agentos.worker", *args, env={"AGENTOS_DSN": pool.dsn})
    assert worker.ended() == code
    assert says in "".join(worker.lines)
    assert "Traceback" not in "".join(worker.lines)


def test_a_health_port_that_is_taken_is_said(pool: Pool) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))  # noqa: S104  where the worker listens
        taken.listen()
        worker = pool.worker("--health-port", str(taken.getsockname()[1]), wait=False)
        assert worker.ended() == 2
    assert "choose a free port" in "".join(worker.lines)
    assert "Traceback" not in "".join(worker.lines)


def test_its_log_lines_are_json_and_name_the_item(pool: Pool) -> None:
    worker = pool.worker()
    handle = pool.submit("fails_once")
    line = json.loads(worker.until_said("attempt failed"))
    assert (line["task_id"], line["attempt"], line["error_type"]) == (handle.task_id, 1, "ValueError")


def probe(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


OTHERS_NEED = {
    "rich", "sqlite3", "yaml", "httpx", "opentelemetry", "starlette", "uvicorn", "pydantic_settings", "dotenv",
    "argparse", "http.client", "psycopg_pool", "platformdirs", "multiprocessing", "stamina", "agentos.store.embedded",
}  # fmt: skip


def test_a_worker_imports_nothing_that_only_others_need() -> None:
    code = (
        "import sys, agentos.worker.__main__ as m\nsys.argv[1:] = ['--app', 'nowhere:app']\n"
        "try: m.main()\nexcept SystemExit: pass\n"
        "assert 'agentos.worker.command' in sys.modules\n"
        "import gc; assert gc.isenabled()\n"
        f"found = {OTHERS_NEED!r} & set(sys.modules)\n"
        "import rich  # a handler may\n"
        "sys.exit(sorted(found) or 0)"
    )
    env = {**os.environ, "AGENTOS_DATA_DIR": "/nowhere"}  # only who is not root and set none looks for the user's
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
