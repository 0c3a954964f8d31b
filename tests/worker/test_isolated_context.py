"""An isolated handler has all of a task context, or is told why not before anything happened."""

from pathlib import Path
from typing import Any

import pytest
from tests.worker import context_app

from agentos.core.app import App, BlockingContext, TaskContext
from agentos.store.errors import ConfigInvalid
from agentos.testing import Pool
from agentos.worker.isolated.context import IsolatedContext

INTERNAL = {"enter", "end"}
"""Called by what runs the handler."""
INHERITED = {"progress", "tell_tokens", "enter"}
"""Which the process does by itself, with what it was given."""


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("FETCHED", str(tmp_path / "fetched"))


def public(*kinds: type) -> set[str]:
    return {name for kind in kinds for name in dir(kind) if not name.startswith("_")}


def test_what_a_context_has_is_used_here_and_answered_by_the_isolated_one() -> None:
    assert set(context_app.USES) | INTERNAL == public(TaskContext, BlockingContext), "use it in context_app.USES"
    own = set(vars(IsolatedContext))
    assert public(TaskContext) - own == INHERITED, "Bound would answer these out of what only the worker has"


@pytest.mark.parametrize("kind", ["uses", "uses_blocking"])
def test_every_call_goes_through(agentos_pool: Pool, tmp_path: Path, kind: str) -> None:
    handle = context_app.app.submit(kind)
    handle.signal("go", {"by": "us"})
    agentos_pool.drain(context_app.app, skip_waits=True)
    made: dict[str, Any] = handle.result(0)["1"] if "more" in handle.result(0) else handle.result(0)
    missing = set(context_app.USES) - set(made)
    assert missing <= {"left", "tell_tokens"}, "only the async context has these"
    assert made.pop("transaction").startswith("IsolationRefused: ctx.transaction cannot be had")
    assert made.pop("approval").startswith("WaitTimeout")
    assert made.pop("attempt") > 1
    assert made.pop("item_id") > 0
    assert isinstance(made.pop("version"), int)
    assert (made.pop("left", False), made.pop("tell_tokens", None)) == (False, None)
    assert made == {
        "task_id": handle.task_id, "key": made["key"], "snapshot": {"at": 1}, "log": None, "progress": None,
        "checkpoint": {"at": 1}, "tool": {"result": 8}, "record": {"y": 2}, "record_llm": "ho", "llm": "ho",
        "llm_stream": "ho",
        "results": {}, "artifact": "Evidence", "fetch_artifact": "fetched", "sleep": None, "sleep_until": None,
        "wait_for": {"by": "us"}, "spawn": "Child", "gather": [9], "expand": made["expand"],
    }  # fmt: skip
    assert (tmp_path / "fetched").read_text() == Path(context_app.__file__).read_text()
    events = {event for (event,) in agentos_pool.rows("SELECT event FROM agentos.events")}
    assert {"log", "progress"} <= events


@pytest.mark.parametrize("kind", ["refused", "refused_blocking"])
def test_what_cannot_be_had_is_refused_before_anything_happened(agentos_pool: Pool, kind: str) -> None:
    handle = context_app.app.submit(kind)
    agentos_pool.drain(context_app.app)
    for name, said in handle.result(0).items():
        assert said.startswith("IsolationRefused: "), name
        assert f'{name} cannot be had in a handler with isolation="process"' in said
        assert "runs in the worker, can do that part" in said
    assert agentos_pool.rows("SELECT count(*) FROM agentos.tool_ledger") == [(0,)]
    assert agentos_pool.rows("SELECT count(*) FROM agentos.llm_cache") == [(0,)]


POINTS = [(at, when) for at in ("tool", "checkpoint", "sleep", "spawn") for when in ("before", "during", "after")]
POINTS.remove(("sleep", "after"))  # its process has ended by then


@pytest.mark.parametrize(("at", "when"), POINTS)
def test_its_process_killed_at_a_durable_point_leaves_what_a_plain_handler_would(
    agentos_pool: Pool, at: str, when: str
) -> None:
    """By a real SIGKILL of the process alone; `during`: its question has left, and nobody hears the answer."""
    handle = context_app.app.submit("dies", {"at": at, "when": when})
    agentos_pool.drain(context_app.app, skip_waits=True)
    spawned = at == "spawn"
    assert handle.result(0)["squares"] == ([9] if spawned else [])
    assert agentos_pool.rows("SELECT count(*) FROM agentos.task_records WHERE kind = 'child'") == [(int(spawned),)]
    assert agentos_pool.rows("SELECT count(*) FROM agentos.tool_ledger WHERE state = 'begun'") == [(0,)]
    assert agentos_pool.rows("SELECT count(*) FROM agentos.item_places WHERE crashes > 0") == [(0,)]


def test_a_handler_that_no_other_process_can_import_is_refused_with_the_fix(agentos_pool: Pool) -> None:
    app = App()

    @app.task("local", isolation="process")
    async def local(_ctx: TaskContext) -> None: ...

    app.submit("local")
    with pytest.raises(ConfigInvalid, match="at the top of a module"):
        agentos_pool.drain(app)
