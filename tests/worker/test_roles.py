"""Least privilege with real processes: submitter, worker and coordinator, each under a role that can do no more."""

import signal
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql
from tests.coordinator.daemon import Daemon
from tests.store.engine import submit
from tests.worker.inprocess import outcome, serving
from tests.worker.pool import Pool

from agentos.core.app import App, TaskContext
from agentos.core.evidence import Evidence, EvidenceType, LocalWorld, Verdict, check
from agentos.store.connect import Database
from agentos.store.grants import DUTIES
from agentos.store.migrate import migrate

Conn = psycopg.Connection[Any]
PREFIX = "least_"
WRITES = {"payments": "INSERT INTO public.payments VALUES ('x')", "secrets": "INSERT INTO public.secrets VALUES ('x')"}


@pytest.fixture
def logins(conn: Conn, database_dsn: str) -> Iterator[dict[str, str]]:
    """A DSN for each duty, of a login that is granted its role and nothing else."""
    migrate(conn, role_prefix=PREFIX)
    parts, found = urlsplit(database_dsn), {}
    for duty in DUTIES:
        name = f"{PREFIX}login_{duty}"
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x' IN ROLE {}").format(
            sql.Identifier(name), sql.Identifier(PREFIX + duty)))  # fmt: skip
        found[duty] = urlunsplit(parts._replace(netloc=f"{name}:x@{parts.netloc.rpartition('@')[2]}"))
    yield found
    conn.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(sql.Identifier(f"{PREFIX}owner")))
    for name in (*(f"{PREFIX}login_{duty}" for duty in DUTIES), f"{PREFIX}owner", *(PREFIX + duty for duty in DUTIES)):
        conn.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(name)))
        conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def duties(logins: dict[str, str], pool: Pool) -> Iterator[dict[str, str]]:
    """Those, with a pool of processes that end before the roles do."""
    yield logins
    pool.close()


def test_a_task_is_recovered_by_processes_that_may_do_only_their_duty(pool: Pool, duties: dict[str, str]) -> None:
    pool.coordinator("--dsn", duties["coordinator"])
    app = App(dsn=duties["submitter"])
    doomed = pool.worker("--dsn", duties["worker"])
    handle = app.submit("journey", {"steps": 3, "pause_after": 1})
    pool.until_effect("paused 1 1")
    doomed.signal(signal.SIGKILL)
    pool.worker("--dsn", duties["worker"])
    pool.log.with_name("go").touch()
    assert handle.result(60)["done"] == [0, 1, 2]
    assert pool.repeated("effect") == []
    assert pool.counters(handle) == (2, 0, 1)
    leaving = pool.worker("--dsn", duties["worker"])
    leaving.signal(signal.SIGTERM)
    assert leaving.ended() == 0


@pytest.mark.parametrize(("module", "duty"), [("agentos.worker", "submitter"), ("agentos.worker", "coordinator")])
def test_a_process_under_the_wrong_role_says_which_is_the_right_one(
    duties: dict[str, str], module: str, duty: str
) -> None:
    started = Daemon(module, env={"AGENTOS_DSN": duties[duty]})
    assert started.ended() == 3
    said = "".join(started.lines)
    assert "permission denied for function" in said
    assert "GRANT agentos_worker TO" in said
    assert "Traceback" not in said


async def test_a_handlers_own_writes_and_evidence_are_under_his_login(duties: dict[str, str], conn: Conn) -> None:
    """Not under the engine's owner: a table that the login was not granted stays closed, to both."""
    conn.execute("CREATE TABLE public.payments (what text); CREATE TABLE public.secrets (what text)")
    conn.execute(
        "INSERT INTO public.secrets VALUES ('x'); GRANT SELECT, INSERT ON public.payments TO least_login_worker"
    )
    app = App(dsn=duties["worker"])

    @app.task("pays", max_attempts=1)
    async def pays(ctx: TaskContext, table: str) -> str:
        async with ctx.transaction() as mine:
            await mine.execute(WRITES[table])
            await ctx.checkpoint("iteration_end", {})
            return str(await mine.fetchval("SELECT current_user"))

    async with serving(app, duties["worker"]):
        submitting = App(dsn=duties["submitter"])
        assert await outcome(submitting.submit("pays", {"table": "payments"})) == "least_login_worker"
        refused = await outcome(submitting.submit("pays", {"table": "secrets"}, max_attempts=1))
    assert "permission denied for table secrets" in str(refused)
    assert conn.execute("SELECT count(*) FROM public.payments").fetchone() == (1,)
    found = {table: verdict(duties["worker"], table) for table in ("payments", "secrets")}
    assert (found["payments"].holds, found["secrets"].holds) == (True, False)
    assert "permission denied for table secrets" in found["secrets"].reason


def verdict(dsn: str, table: str, **where: str) -> Verdict:
    """What a check of a row finds over this login."""
    db = Database(dsn)
    world = LocalWorld(recorded_exit_code=lambda _: None, connect=db.connection, may_rerun=False)
    try:
        return check(
            Evidence(EvidenceType.DB_ROW, "is there", {"table": table, "where": where or {"what": "x"}}), world
        )
    finally:
        db.close()


def test_evidence_may_have_a_role_of_its_own(
    duties: dict[str, str], conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTOS_EVIDENCE_ROLE", "least_reader")
    started = Daemon("agentos.worker", env={"AGENTOS_DSN": duties["worker"]})
    assert started.ended() == 3
    assert "GRANT least_reader TO" in "".join(started.lines)
    conn.execute("GRANT least_reader TO least_login_worker WITH INHERIT FALSE")  # as it is, it still reads nothing
    submit(Database(duties["submitter"]), "task-7")
    assert verdict(duties["worker"], "tasks", task_id="task-7").holds
    monkeypatch.delenv("AGENTOS_EVIDENCE_ROLE")
    assert "permission denied" in verdict(duties["worker"], "tasks", task_id="task-7").reason
    monkeypatch.setenv("AGENTOS_EVIDENCE_ROLE", "least_reader")
    started = Daemon("agentos.worker", env={"AGENTOS_DSN": duties["worker"]})
    started.until_said('"serving"')
    started.signal(signal.SIGTERM)
    assert started.ended() == 0
