"""A submit inside a program that traces: its tasks carry the trace, in the transaction that makes them."""

import contextvars
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.store import engine

from agentos.cli.__main__ import main
from agentos.core.app import App
from agentos.core.evidence import PackVerdict
from agentos.core.kinds import make_items
from agentos.core.lease import Lease
from agentos.core.scope import ItemScope
from agentos.core.task import TaskManager
from agentos.core.tracing import setup
from agentos.core.tracing.step import step, steps_of_attempt
from agentos.store.calls.traces import Origin
from agentos.store.connect import Database
from agentos.store.errors import LeaseLost, TaskExists
from agentos.store.run import drive

Conn = psycopg.Connection[Any]


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What the program's own provider exports."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


def carried(conn: Conn) -> dict[str, str]:
    return dict(conn.execute("SELECT task_id, traceparent FROM agentos.traces").fetchall())


def parent_of(span: Any) -> str:
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"


def test_a_submit_is_a_span_below_the_callers_and_its_task_carries_it(
    exported: InMemorySpanExporter, database_dsn: str, conn: Conn
) -> None:
    app = App(dsn=database_dsn)
    with trace.get_tracer("mine").start_as_current_span("request"):
        handle = app.submit("work", {"n": 1}, queue="slow")
        many = app.submit_many("work", [{}, {}])
    one, several, request = exported.get_finished_spans()
    assert (one.name, one.kind, several.name) == ("submit work", trace.SpanKind.PRODUCER, "submit work")
    assert one.parent is not None
    assert one.parent.span_id == request.context.span_id
    assert one.attributes is not None
    assert (one.attributes["agentos.task_id"], one.attributes["agentos.queue"]) == (handle.task_id, "slow")
    assert carried(conn) == {
        handle.task_id: parent_of(one), many[0].task_id: parent_of(several), many[1].task_id: parent_of(several)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("how", "name"),
    [
        ({"kind": "shell", "payload": {"command": "true"}}, "submit shell"),
        ({"items": [{"kind": "shell", "payload": {"command": "true"}}] * 2}, "submit plan"),
        ({"items": [{"kind": "shell", "payload": {"command": "true"}}] * 1001}, "submit plan"),
        ({}, "submit plan"),
    ],
    ids=["one item", "two items", "in batches", "a title"],
)
def test_a_task_that_a_manager_creates_is_a_span_and_carries_it(
    exported: InMemorySpanExporter, database_dsn: str, conn: Conn, how: dict[str, Any], name: str
) -> None:
    TaskManager(Database(database_dsn)).create_task("t", task_id="task-1", **how)
    (span,) = [each for each in exported.get_finished_spans() if each.name.startswith("submit")]
    assert span.name == name
    assert (span.attributes or {})["agentos.task_id"] == "task-1"
    assert carried(conn) == {"task-1": parent_of(span)}


def test_agentos_run_is_a_span_and_its_task_carries_it(
    exported: InMemorySpanExporter, database_dsn: str, conn: Conn, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('{"title": "t", "items": [{"key": "a", "kind": "shell", "payload": {"command": "true"}}]}')
    with pytest.raises(SystemExit):  # nobody runs it: the following ends at its timeout
        main(["run", str(plan), "--task-id", "task-1", "--timeout", "0.1", "--dsn", database_dsn])
    (span,) = [each for each in exported.get_finished_spans() if each.name == "submit plan"]
    assert carried(conn) == {"task-1": parent_of(span)}


def test_what_is_rolled_back_carries_nothing(exported: InMemorySpanExporter, database_dsn: str, conn: Conn) -> None:
    app = App(dsn=database_dsn)
    app.submit("work", task_id="task-1")
    with pytest.raises(TaskExists):
        app.submit("work", task_id="task-1")
    with psycopg.connect(database_dsn) as mine:
        app.submit("work", task_id="task-2", conn=mine)
        mine.rollback()
    assert list(carried(conn)) == ["task-1"]
    assert exported.get_finished_spans()[1].status.status_code is trace.StatusCode.ERROR


def test_items_that_a_planner_adds_are_a_span_below_its_attempt(exported: InMemorySpanExporter, db: Database) -> None:
    engine.submit(db, kind="plan")
    worker = engine.register(db, kinds=["plan"])
    (item,) = worker.claim()
    tracing = setup.find()
    assert tracing is not None
    attempt = tracing.attempt(item, worker.worker_id, Origin(datetime.now(UTC), None, None, None))
    fence, holds = worker.fence(item), PackVerdict(True, [], "")
    scope, late = (
        ItemScope(item, Lease(each, "task-1", 1), verify_row=lambda _: holds, verify=lambda *_: holds)
        for each in (fence, engine.stale(fence, token=engine.other_token()))
    )
    plan: list[dict[str, Any]] = [{"key": "a", "kind": "shell"}, {"key": "b", "kind": "shell", "depends_on": ["a"]}]

    def planning() -> None:
        attempt.enter()
        drive(db, make_items(scope, plan))
        drive(db, make_items(scope, [*plan, {"key": "c", "kind": "shell"}]))
        with pytest.raises(LeaseLost):
            drive(db, make_items(late, plan))

    contextvars.copy_context().run(planning)
    attempt.end("completed", None)
    *submits, above = exported.get_finished_spans()
    assert (above.name, {each.name for each in submits}) == ("attempt plan", {"submit plan"})
    assert {each.parent.span_id for each in submits if each.parent} == {above.context.span_id}
    told = [dict(each.attributes or {}) for each in submits]
    assert [(each["messaging.batch.message_count"], each.get("agentos.added")) for each in told] == [
        (2, 2), (3, 1), (2, None)
    ]  # fmt: skip
    assert {each["agentos.task_id"] for each in told} == {"task-1"}
    assert [each.status.status_code is trace.StatusCode.ERROR for each in submits] == [False, False, True]


def test_spans_tell_no_secrets(exported: InMemorySpanExporter) -> None:
    tracing = setup.find()
    assert tracing is not None
    token = steps_of_attempt.set(tracing)
    try:
        with pytest.raises(ValueError, match="no answer"), step("execute_tool fetch"):
            raise ValueError("no answer from postgresql://me:s3cret@db.example/prod")
    finally:
        steps_of_attempt.reset(token)
    (span,) = exported.get_finished_spans()
    (event,) = span.events
    told = f"{span.status.description} {dict(event.attributes or {})}"
    assert "s3cret" not in told
    assert "no answer from" in told
    assert (event.attributes or {})["exception.type"] == "ValueError"


def test_a_program_that_does_not_trace_writes_nothing(database_dsn: str, conn: Conn) -> None:
    App(dsn=database_dsn).submit("work")
    assert carried(conn) == {}


def test_without_a_tracer_of_its_own_it_carries_the_span_it_is_in(database_dsn: str, conn: Conn) -> None:
    """A program that has the API only, inside the span of whoever called it."""
    here = trace.SpanContext(0xA, 0xB, is_remote=True, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(here)):
        handle = App(dsn=database_dsn).submit("work")
    assert carried(conn) == {handle.task_id: f"00-{0xA:032x}-{0xB:016x}-01"}


def test_a_collector_that_does_not_answer_keeps_no_process_from_ending(
    exported: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TracerProvider, "force_flush", lambda *_: time.sleep(30))
    began = time.monotonic()
    setup.flush(0.2)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "none that agentos knows"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, "OpenTelemetry is not installed"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, ""),
    ],
)
def test_what_the_environment_asks_for_and_cannot_be_had_is_said(env: dict[str, str], says: str) -> None:
    """A process as if the extra were not there: it goes on without."""
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from agentos.core.logs import configure_logs; configure_logs('json')\n"
        "from agentos.core.tracing import setup; setup.install('x'); setup.flush(); print('goes on')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={**os.environ, **env}
    )
    assert done.stdout == "goes on\n"
    assert says in done.stderr
    assert bool(says) == bool(done.stderr)
