"""ToolLedger: executed once, replayed, in doubt, repaired; against a real database and real processes."""

import threading
from pathlib import Path
from typing import Any

import pytest
from tests.core.processes import bury, killed, start

from agentos.core.evidence import Evidence, EvidenceType
from agentos.core.idempotency import NOT_DONE, UNKNOWN, Done, ToolCall, ToolLedger
from agentos.core.task import TaskManager
from agentos.store.connect import Database
from agentos.store.errors import (
    AgentOSError,
    InDoubt,
    InvalidInput,
    InvalidValue,
    PostconditionFailed,
    UnknownTask,
    ValueTooLarge,
)
from agentos.testing.clock import Clock

DIE_IN_TOOL = """
import sys, time, pathlib
from agentos.core.idempotency import ToolLedger
def tool():
    pathlib.Path(sys.argv[1]).touch()
    time.sleep(60)
ToolLedger().execute_or_replay("pay", "invoice", "task-123", tool)
"""


@pytest.fixture
def ledger(database_dsn: str) -> ToolLedger:
    TaskManager().create_task("a task", task_id="task-123")
    return ToolLedger()


class Tool:
    """Counts its executions."""

    def __init__(self, result: Any = None) -> None:
        self.calls = 0
        self.result = result

    def __call__(self) -> Any:
        self.calls += 1
        return {"exit_code": 0} if self.result is None else self.result


def call(ledger: ToolLedger, tool: Any, command: Any = "make", **more: Any) -> dict[str, Any]:
    return ledger.execute_or_replay("bash", command, "task-123", tool, **more)


def newest(ledger: ToolLedger) -> dict[str, Any]:
    return ledger.get_execution_history("task-123")[0]


def test_a_call_is_executed_once_and_replayed_whatever_its_exit_code(ledger: ToolLedger) -> None:
    tool = Tool({"exit_code": 2, "out": [1, 2.5]})
    assert call(ledger, tool) == {"exit_code": 2, "out": [1, 2.5], "replayed": False}
    assert call(ledger, tool) == {"exit_code": 2, "out": [1, 2.5], "replayed": True}
    assert tool.calls == 1
    entry = newest(ledger)
    assert (entry["state"], entry["exit_code"], entry["executions"], entry["replays"]) == ("finished", 2, 1, 1)
    assert entry["command"] == "make"


def test_another_command_tool_or_task_is_another_call(ledger: ToolLedger) -> None:
    TaskManager().create_task("another", task_id="task-124")
    tool = Tool()
    call(ledger, tool)
    call(ledger, tool, "make test")
    ledger.execute_or_replay("sh", "make", "task-123", tool)
    ledger.execute_or_replay("bash", "make", "task-124", tool)
    assert tool.calls == 4


def test_what_raised_is_recorded_and_runs_again(ledger: ToolLedger) -> None:
    def breaks() -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        call(ledger, breaks)
    assert (newest(ledger)["state"], newest(ledger)["error"]) == ("failed", "OSError: no space left")
    assert call(ledger, Tool())["replayed"] is False
    assert newest(ledger)["executions"] == 2


def test_a_result_that_is_no_dict_comes_back_as_result(ledger: ToolLedger) -> None:
    assert call(ledger, lambda: [1, None]) == {"result": [1, None], "replayed": False}
    assert call(ledger, lambda: 5) == {"result": [1, None], "replayed": True}
    assert call(ledger, lambda: None, "other") == {"result": None, "replayed": False}


def test_force_execute_replaces_the_record(ledger: ToolLedger) -> None:
    call(ledger, lambda: {"n": 1})
    assert call(ledger, lambda: {"n": 2}, force_execute=True) == {"n": 2, "replayed": False}
    assert call(ledger, lambda: {"n": 3}) == {"n": 2, "replayed": True}


@pytest.mark.parametrize(
    ("result", "refused"),
    [({"out": "a\x00b"}, InvalidValue), ({"out": float("nan")}, InvalidValue), (b"x", InvalidValue),
     ({"out": "x" * (9 * 1024 * 1024)}, ValueTooLarge)],
    ids=["nul", "nan", "bytes", "large"],
)  # fmt: skip
def test_a_result_that_cannot_be_stored_is_recorded_as_finished_and_never_done_twice(
    ledger: ToolLedger, result: Any, refused: type[AgentOSError]
) -> None:
    tool = Tool(result)
    for _ in range(2):
        with pytest.raises(refused):
            call(ledger, tool)
    assert tool.calls == 1
    entry = newest(ledger)
    assert (entry["state"], entry["result"]["error"]) == ("finished", refused.__name__)
    if refused is ValueTooLarge:
        assert entry["result"]["size"] == 9 * 1024 * 1024


def test_a_command_that_cannot_be_stored_is_refused_before_it_runs(ledger: ToolLedger) -> None:
    tool = Tool()
    with pytest.raises(InvalidValue):
        call(ledger, tool, "a\x00b")
    with pytest.raises(UnknownTask, match="create_task"):
        ledger.execute_or_replay("bash", "make", "task-999", tool)
    assert tool.calls == 0


def test_threads_that_ask_at_once_execute_once(ledger: ToolLedger) -> None:
    inside, go = threading.Event(), threading.Event()
    results: list[dict[str, Any]] = []
    calls: list[int] = []

    def tool() -> dict[str, Any]:
        calls.append(1)
        inside.set()
        go.wait(10)
        return {"made": len(calls)}

    threads = [threading.Thread(target=lambda: results.append(call(ledger, tool))) for _ in range(6)]
    for thread in threads:
        thread.start()
    assert inside.wait(10)
    go.set()
    for thread in threads:
        thread.join(10)
    assert calls == [1]
    assert sorted(result["replayed"] for result in results) == [False, True, True, True, True, True]


def test_the_tool_is_given_a_stable_idempotency_key_if_it_wants_one(ledger: ToolLedger) -> None:
    seen: list[ToolCall] = []

    def tool(this: ToolCall) -> None:
        seen.append(this)
        raise OSError

    for _ in range(2):
        with pytest.raises(OSError):  # noqa: PT011  ours, without a text
            call(ledger, tool)
    assert [each.execution for each in seen] == [1, 2]
    assert len({each.idempotency_key for each in seen}) == 1
    call(ledger, lambda command="make": {"ran": command}, "defaults are the caller's own")


# -- in doubt ------------------------------------------------------------------------------------------------------


@pytest.fixture
def doubtful(ledger: ToolLedger, db: Database, tmp_path: Path) -> ToolLedger:
    """A call ("pay", "invoice") whose process died in it."""
    died = start(DIE_IN_TOOL, tmp_path / "inside")
    killed(died, tmp_path / "inside")
    bury(db, died.pid)
    return ledger


def pay(ledger: ToolLedger, tool: Any, **more: Any) -> dict[str, Any]:
    return ledger.execute_or_replay("pay", "invoice", "task-123", tool, **more)


def test_a_call_in_doubt_stops_by_default_and_is_shown(doubtful: ToolLedger) -> None:
    tool = Tool()
    assert newest(doubtful)["in_doubt"] is True
    for _ in range(2):
        with pytest.raises(InDoubt, match=r"pay.*begun.*never finished"):
            pay(doubtful, tool)
    assert tool.calls == 0


def test_a_call_in_doubt_runs_again_where_that_is_safe(doubtful: ToolLedger) -> None:
    assert pay(doubtful, lambda: {"paid": 1}, on_doubt="retry") == {"paid": 1, "replayed": False}
    assert pay(doubtful, Tool()) == {"paid": 1, "replayed": True}
    assert (newest(doubtful)["executions"], newest(doubtful)["in_doubt"]) == (2, False)


def test_a_probe_finds_that_it_was_done(doubtful: ToolLedger) -> None:
    tool = Tool()
    assert pay(doubtful, tool, on_doubt="probe", probe=lambda call: Done({"paid": 7})) == {"paid": 7, "replayed": True}
    assert pay(doubtful, tool) == {"paid": 7, "replayed": True}
    assert tool.calls == 0


def test_a_probe_finds_that_it_was_not_done(doubtful: ToolLedger) -> None:
    asked: list[Any] = []

    def probe(this: ToolCall, arguments: Any) -> Any:
        asked.append((this.execution, arguments))
        return NOT_DONE

    assert pay(doubtful, Tool(), on_doubt="probe", probe=probe)["replayed"] is False
    assert asked == [(1, "invoice")]


@pytest.mark.parametrize("answer", [UNKNOWN, None, True])
def test_a_probe_that_cannot_find_out_leaves_it_in_doubt(doubtful: ToolLedger, answer: Any) -> None:
    with pytest.raises(InDoubt, match="its probe"):
        pay(doubtful, Tool(), on_doubt="probe", probe=lambda: answer)
    assert newest(doubtful)["in_doubt"] is True


def test_only_one_of_several_resolves_a_doubt(doubtful: ToolLedger) -> None:
    calls: list[int] = []
    results: list[dict[str, Any]] = []

    def tool() -> dict[str, Any]:
        calls.append(1)
        return {"n": len(calls)}

    threads = [threading.Thread(target=lambda: results.append(pay(doubtful, tool, on_doubt="retry"))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert calls == [1]
    assert [result["n"] for result in results] == [1] * 5


def test_an_interrupted_call_is_in_doubt_although_its_process_lives(ledger: ToolLedger) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(ledger, interrupted)
    with pytest.raises(InDoubt):
        call(ledger, Tool())
    assert call(ledger, Tool(), on_doubt="retry")["replayed"] is False


@pytest.mark.parametrize("wrong", [{"on_doubt": "guess"}, {"on_doubt": "probe"}, {"expires_in_seconds": 0}])
def test_options_that_make_no_sense_are_refused_before_anything_runs(ledger: ToolLedger, wrong: Any) -> None:
    tool = Tool()
    with pytest.raises(InvalidInput):
        call(ledger, tool, **wrong)
    assert tool.calls == 0


# -- what it produced ----------------------------------------------------------------------------------------------


def made(path: Path) -> Evidence:
    return Evidence(EvidenceType.ARTIFACT_EXISTS, "the product", {"path": str(path)})


def test_a_replay_needs_its_product(ledger: ToolLedger, tmp_path: Path) -> None:
    product = tmp_path / "product"
    call(ledger, product.touch, produces=[made(product)])
    assert call(ledger, Tool(), produces=[made(product)])["replayed"] is True
    product.unlink()
    with pytest.raises(PostconditionFailed, match="does not exist"):
        call(ledger, Tool(), produces=[made(product)])
    with pytest.raises(PostconditionFailed):  # what was declared when it ran counts for who declares nothing
        call(ledger, Tool())


def test_what_is_safe_to_repeat_is_repaired_with_the_same_key(ledger: ToolLedger, tmp_path: Path) -> None:
    product = tmp_path / "product"
    seen: list[ToolCall] = []

    def tool(this: ToolCall) -> dict[str, str]:
        seen.append(this)
        product.touch()
        return {"path": str(product)}

    def declared(result: dict[str, str]) -> list[Evidence]:
        return [made(Path(result["path"]))]

    call(ledger, tool, produces=declared, safe_to_repeat=True)
    product.unlink()
    assert call(ledger, tool, produces=declared, safe_to_repeat=True)["replayed"] is False
    assert product.exists()
    assert [each.repair for each in seen] == [False, True]
    assert seen[0].idempotency_key == seen[1].idempotency_key
    assert newest(ledger)["repairs"] == 1
    assert ledger.get_stats()["repairs"] == 1


# -- expiry and figures --------------------------------------------------------------------------------------------


def test_a_record_expires_after_30_days(ledger: ToolLedger, clock: Clock) -> None:
    tool = Tool()
    call(ledger, tool)
    clock.advance(29.9 * 86400)
    assert call(ledger, tool)["replayed"] is True
    clock.advance(0.2 * 86400)
    assert call(ledger, tool)["replayed"] is False
    call(ledger, tool, "brief", expires_in_seconds=60)
    clock.advance(61)
    assert call(ledger, tool, "brief")["replayed"] is False


def test_the_figures_are_this_instances_since_it_was_made_or_reset(ledger: ToolLedger) -> None:
    assert ledger.get_stats()["replay_rate"] == 0.0
    for command in ("a", "a", "a", "b"):
        call(ledger, Tool(), command)
    assert ledger.get_stats() == {
        "executions": 2, "replays": 2, "repairs": 0, "total_requests": 4, "replay_rate": 0.5,
    }  # fmt: skip
    assert ToolLedger().get_stats()["total_requests"] == 0
    ledger.reset_stats()
    assert ledger.get_stats()["total_requests"] == 0


def test_the_history_is_newest_first_and_as_long_as_asked(ledger: ToolLedger) -> None:
    for command in ("a", "b", "c"):
        call(ledger, Tool(), command)
    assert [entry["command"] for entry in ledger.get_execution_history("task-123", limit=2)] == ["c", "b"]
    with pytest.raises(InvalidInput):
        ledger.get_execution_history("task-123", limit=0)
    with pytest.raises(UnknownTask):
        ledger.get_execution_history("task-999")
