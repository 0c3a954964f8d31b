"""A task's trace, from its submit over the processes it ran in, one of them killed: what they really export."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from tests.coordinator.daemon import until
from tests.worker.collector import Collector, Span, collecting
from tests.worker.pool import PATH, Pool, Sweeping

from agentos.core.app import App

APP = "tests.worker.traced_app:app"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


def below(span: Span, parent: Span) -> bool:
    return (span.parent, span.trace_id) == (parent.span_id, parent.trace_id)


def test_one_trace_from_the_submit_over_a_killed_worker_to_the_end(
    pool: Pool, collector: Collector, sweeping: Sweeping
) -> None:
    first = pool.worker(app=APP, env=collector.env)
    submitted = subprocess.run(
        [sys.executable, "-m", "agentos.cli", "submit", "agent", "--task-id", "task-1"], check=True, text=True,
        capture_output=True, env={**os.environ, **collector.env, "AGENTOS_DSN": pool.dsn}, timeout=60,
    )  # fmt: skip
    assert submitted.stdout.strip() == "task-1"
    pool.until_effect("holding")
    until(lambda: collector.all("checkpoint iteration_end") and collector.all("submit agent"))
    killed_ns = time.time_ns()
    first.kill()
    second = pool.worker(app=APP, env=collector.env)
    handle = App(dsn=pool.dsn).handle("task-1")
    until(lambda: collector.all("attempt agent", attempt=2), timeout_s=60)
    handle.signal("go", None)
    assert handle.result(60) == "done"
    second.signal(signal.SIGTERM)
    assert second.ended() == 0

    submit = collector.one("submit agent", task_id="task-1")
    assert (submit.parent, submit.service) == ("", "agentos")
    assert {span.trace_id for span in collector.spans} == {submit.trace_id}

    # The attempt that died told nothing of itself; the next one did, so its calls have a parent.
    lost = collector.one("attempt agent", attempt=1)
    assert (lost.attributes["agentos.outcome"], lost.failed) == ("lost", True)
    assert below(lost, submit)
    assert lost.start < killed_ns < lost.end
    paid = next(span for span in collector.all("chat m") if below(span, lost))
    assert paid.attributes["gen_ai.usage.input_tokens"] == 7
    assert paid.attributes["gen_ai.response.model"] == "m-2"
    assert [below(s, lost) for s in collector.all("execute_tool lookup") if "agentos.replayed" not in s.attributes] == [
        True
    ]
    assert below(collector.one("checkpoint iteration_end"), lost)

    # The second goes on from the checkpoint: what was recorded is replayed and takes no time; then it waits as a row.
    resumed = collector.one("attempt agent", attempt=2)
    assert below(resumed, submit)
    assert (resumed.attributes["agentos.resumed_from"], resumed.attributes["agentos.outcome"]) == (1, "parked")
    assert resumed.attributes["agentos.worker_id"] != lost.attributes["agentos.worker_id"]
    replayed = [span for span in collector.spans if below(span, resumed) and span.attributes.get("agentos.replayed")]
    assert sorted(span.name for span in replayed) == ["chat m", "execute_tool lookup"]
    assert all(span.start == span.end for span in replayed)
    wait = next(span for span in collector.all("wait signal go") if below(span, resumed))
    assert wait.attributes["agentos.left"] == "Parked"

    # Child tasks are below the call that made them.
    last = collector.one("attempt agent", outcome="completed")
    child = collector.one("attempt child")
    assert child.parent in {span.span_id for span in collector.all("spawn child")}
    assert below(last, submit)
    assert (child.attributes["agentos.outcome"], child.failed) == ("completed", False)


def test_a_handler_in_a_process_of_its_own_is_part_of_the_trace_of_a_task_that_nobody_traced(
    pool: Pool, collector: Collector, hurrying: Sweeping
) -> None:
    worker = pool.worker(app=APP, env=collector.env)
    assert App(dsn=pool.dsn).submit("apart").result(60) == 2
    line = json.loads(worker.until_said("attempt failed"))
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0
    first, second = (collector.one("attempt apart", attempt=n) for n in (1, 2))
    assert (first.parent, second.parent) == ("", "")
    assert first.trace_id == second.trace_id
    assert (first.attributes["agentos.outcome"], second.attributes["agentos.outcome"]) == ("retried", "completed")
    assert (first.failed, first.attributes["error.type"]) == (True, "ValueError")
    assert [below(span, attempt) for span, attempt in zip(collector.all("inside"), (first, second), strict=True)] == [
        True, True,
    ]  # fmt: skip
    assert {span.service for span in collector.spans} == {"agentos-worker"}
    assert (line["trace_id"], line["span_id"]) == (first.trace_id, first.span_id)


def test_nothing_of_opentelemetry_is_imported_where_nobody_traces() -> None:
    code = (
        "import sys, agentos.worker.command, agentos.core.app, agentos.core.tracing.setup as t\n"
        "t.install('x'); t.flush()\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    assert subprocess.run([sys.executable, "-c", code], check=False, env={**env, "PYTHONPATH": PATH}).returncode == 0
