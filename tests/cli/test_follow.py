"""`agentos follow`."""

import json

from tests.cli.conftest import Command

from agentos.core.app import App, TaskContext
from agentos.testing import Pool

app = App()


@app.task("told")
async def told(ctx: TaskContext) -> None:
    ctx.log("began", n=1)
    ctx.tell_tokens("plan", "a long")
    ctx.tell_tokens("plan", " text")
    ctx.progress(1, 2, "half")
    raise ValueError("it broke")


def test_events_are_lines_for_people_and_objects_for_programs(agentos: Command, agentos_pool: Pool) -> None:
    app.submit("told", task_id="task-1", queue="default")
    agentos_pool.drain(app, skip_waits=True)
    shown = agentos("follow", "task-1")
    assert shown.returncode == 1
    lines = shown.stdout.splitlines()
    assert "log" in lines[0]
    assert lines[0].endswith("began n=1")
    assert lines[1] == "a long text"
    assert lines[2].endswith("1 of 2 half")
    assert "attempt_failed" in lines[3]
    assert lines[-1].startswith("failed task-1")
    events = [json.loads(line) for line in agentos("follow", "task-1", "--json").stdout.splitlines()]
    assert [e["event"] for e in events[:4]] == ["log", "tokens", "progress", "attempt_failed"]
    rest = agentos("follow", "task-1", "--json", "--after", events[2]["cursor"]).stdout.splitlines()
    assert [json.loads(line) for line in rest] == events[3:]
    assert "tokens" not in agentos("follow", "task-1", "--json", "--no-tokens").stdout


def test_a_task_that_is_not_there_and_a_cursor_that_is_none(agentos: Command, agentos_dsn: str) -> None:
    assert agentos("follow", "nothing").returncode == 5
    assert agentos("follow", "nothing", "--after", "x").returncode in (2, 5)
