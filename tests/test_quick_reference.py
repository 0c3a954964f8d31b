"""Every snippet of docs/quick-reference.md runs, and what the document says besides is true.

The snippets come out of the document; the names they use without defining them are given here as it names them.
"""

import ast
import inspect
import re
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.quick_reference import DOCUMENT, Block, blocks

from agentos.core import checkpoints, idempotency, runner, worker_pool
from agentos.core.checkpoints import CheckpointManager, Evidence, EvidencePack, EvidenceType
from agentos.core.flows.tools import TOOL_EXPIRES_S
from agentos.core.idempotency import LLMOutputCache, ToolLedger
from agentos.core.idempotency.cache import LLM_EXPIRES_S
from agentos.core.runner import TaskRunner
from agentos.core.scope import CHECKPOINT_TYPES
from agentos.core.task import TaskManager
from agentos.core.worker_pool import LeaseManager
from agentos.store.errors import InvalidCheckpointType, UnknownWorkItem

PYTHON = blocks("python")
FRAGMENTS = [block for block in PYTHON if "self." in block.text]
SNIPPETS = [block for block in PYTHON if block not in FRAGMENTS]
WRONG_TYPE = "Checkpoint creation fails"
WRONG_ITEM = "Foreign key constraint failed"

Names = dict[str, Any]


def call_llm(prompt: str) -> str:
    """The model of the document."""
    return f"a plan for: {prompt}"


def run_bash_command(command: str) -> dict[str, Any]:
    """The tool of the document."""
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    return {"exit_code": done.returncode, "stdout": done.stdout}


@pytest.fixture
def names(database_dsn: str) -> Names:
    """What the document's snippets use without making it: task-123, and the objects of the sections before."""
    TaskManager().create_task("The task of the quick reference", task_id="task-123")
    TaskManager().create_task("A work item to lease", kind="shell", payload={"command": "true"}, task_id="task-124")
    return {
        "call_llm": call_llm,
        "prompt": "Generate a plan for task X",
        "run_bash_command": run_bash_command,
        "execute_something": lambda: {"exit_code": 0},
        "task_id": "task-123",
        "manager": CheckpointManager(),
        **{
            name: getattr(checkpoints, name)
            for name in ("CheckpointManager", "Evidence", "EvidencePack", "EvidenceType")
        },
        "TaskRunner": TaskRunner,
    }


def run(block: Block, names: Names) -> None:
    """Execute a snippet as it stands, with the document's line numbers."""
    code = compile("\n" * block.line + block.text, str(DOCUMENT), "exec")
    exec(code, names)  # noqa: S102  the document is ours, and running it is the point


# -- every snippet -------------------------------------------------------------------------------------------------


def test_the_document_has_the_snippets_that_are_tested() -> None:
    assert len(PYTHON) == 21
    assert [block.heading for block in FRAGMENTS] == [
        "Planning Stage (with LLM Cache)", "Work Item Execution (with Checkpoint)", "Recovery on Startup",
    ]  # fmt: skip
    assert [block for block in SNIPPETS if WRONG_ITEM in block.heading]
    assert [block for block in SNIPPETS if WRONG_TYPE in block.heading]


@pytest.mark.parametrize("block", [each for each in SNIPPETS if WRONG_ITEM not in each.heading], ids=lambda b: b.name)
def test_snippet_runs(block: Block, names: Names, capsys: pytest.CaptureFixture[str]) -> None:
    run(block, names)
    check = AFTERWARDS.get(block.heading)
    if check:
        check(names, capsys.readouterr().out)


def test_an_unknown_work_item_is_refused_and_the_snapshot_takes_it(names: Names) -> None:
    block = next(each for each in SNIPPETS if WRONG_ITEM in each.heading)
    wrong, right = (ast.unparse(statement) for statement in ast.parse(block.text).body)
    with pytest.raises(UnknownWorkItem, match="store it in the snapshot instead"):
        exec(wrong, names)  # noqa: S102
    exec(right, names)  # noqa: S102
    committed = names["manager"].commit_step(names["step_id"], EvidencePack(evidence_list=[]))
    assert committed.snapshot == {"work_item_id": "work-item-123"}


def after_recovery(names: Names, _: str) -> None:
    assert names["runner"].run_task("task-123").completed
    assert CheckpointManager().get_last_verified_checkpoint("task-123") is not None


def after_no_recovery(names: Names, _: str) -> None:
    assert names["runner"].run_task("task-123").completed
    assert names["runner"].checkpoint_manager is names["runner"].llm_cache is names["runner"].tool_ledger is None
    assert CheckpointManager().get_last_verified_checkpoint("task-123") is None


def after_manager(names: Names, _: str) -> None:
    assert names["checkpoint"].sequence_number == 1
    # Nothing was recorded for the evidence to stand on: it is false, and says so.
    assert names["is_valid"] is False
    assert names["last_checkpoint"] is None
    assert "nothing recorded" in names["manager"].explain_checkpoint(names["checkpoint"].checkpoint_id).reason


def after_cache(names: Names, out: str) -> None:
    assert names["result"] == "a plan for: Generate a plan for task X"
    assert out == "Cache hit rate: 0.00%\n"


def after_cache_again(names: Names, out: str) -> None:
    after_cache(names, out)
    run(next(each for each in SNIPPETS if each.heading == "2. LLMOutputCache"), {**names, "prompt": "never asked"})


def after_ledger(names: Names, out: str) -> None:
    assert names["result"]["stdout"] == "hello\n"
    assert not names["result"].get("replayed")
    assert out == "Replay rate: 0.00%\n"


def after_lease(names: Names, _: str) -> None:
    assert names["lease"].task_id == "task-124"
    assert TaskManager().get_task("task-124").status == "completed"


def after_wrong_type(names: Names, _: str) -> None:
    assert names["checkpoint_type"] == "iteration_start"
    with pytest.raises(InvalidCheckpointType, match="Invalid checkpoint_type") as refused:
        names["manager"].begin_step("task-123", "my_checkpoint", {})
    assert all(valid in str(refused.value) for valid in CHECKPOINT_TYPES)


def after_complete_flow(names: Names, _: str) -> None:
    task_id = names["task"].task_id
    assert TaskManager().get_task(task_id).status == "completed"
    assert names["runner2"].run_with_recovery(task_id).items_run == 0


def after_manual(names: Names, out: str) -> None:
    assert out == f"Checkpoint created: {names['checkpoint'].checkpoint_id}\n"


AFTERWARDS: dict[str, Callable[[Names, str], None]] = {
    "Enable Recovery in TaskRunner": after_recovery,
    "Disable Recovery (Default Behavior)": after_no_recovery,
    "1. CheckpointManager": after_manager,
    "2. LLMOutputCache": after_cache_again,
    "3. ToolLedger": after_ledger,
    "4. LeaseManager": after_lease,
    'Issue: Checkpoint creation fails with "Invalid checkpoint_type"': after_wrong_type,
    "Complete Recovery Flow": after_complete_flow,
    "Manual Checkpoint Management": after_manual,
}


def test_the_same_call_of_the_document_is_replayed(names: Names, capsys: pytest.CaptureFixture[str]) -> None:
    block = next(each for each in SNIPPETS if each.heading == "3. ToolLedger")
    run(block, names)
    run(block, {**names, "run_bash_command": None})
    assert "Tool result was replayed from cache\nReplay rate: 100.00%\n" in capsys.readouterr().out


def test_a_failing_work_item_releases_its_lease_as_the_document_does(names: Names) -> None:
    block = next(each for each in SNIPPETS if each.heading == "4. LeaseManager")
    run(block, names)
    TaskManager().create_task("fails", kind="shell", payload={"command": "false"}, task_id="task-125")
    broken = block.text.replace("# ... execute work ...", "raise OSError('no such tool')")
    exec(broken, names)  # noqa: S102
    task = TaskManager().get_task("task-125")
    assert (task.status, names["lease"].task_id) == ("running", "task-125")


# -- fragments: they stand in the source, where the document says ---------------------------------------------------


def _statements(node: ast.AST) -> set[str]:
    return {ast.dump(each) for each in ast.walk(node) if isinstance(each, ast.stmt)}


@pytest.mark.parametrize("block", FRAGMENTS, ids=lambda b: b.name)
def test_fragment_is_a_real_code_path(block: Block) -> None:
    method = re.search(r"# In TaskRunner\.(\w+)\(\)", block.text)
    assert method is not None
    source = ast.parse(textwrap.dedent(inspect.getsource(getattr(TaskRunner, method[1]))))
    missing = {ast.dump(each) for each in ast.parse(block.text).body} - _statements(source)
    assert not missing


def test_recovery_off_takes_the_other_branches(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    for name in ("_generate_plan_with_cache", "_generate_plan_direct", "execute_work_item_with_checkpoint",
                 "_execute_single_work_item"):  # fmt: skip
        original = getattr(TaskRunner, name)

        def spy(self: TaskRunner, *args: Any, name: str = name, original: Any = original) -> Any:
            taken.append(name)
            return original(self, *args)

        monkeypatch.setattr(TaskRunner, name, spy)
    assert TaskRunner(enable_recovery=False).run_task("task-123").completed
    assert set(taken) == {"_generate_plan_direct", "_execute_single_work_item"}
    taken.clear()
    recovered = TaskManager().create_task("with recovery").task_id
    assert TaskRunner(enable_recovery=True).run_with_recovery(recovered).completed
    assert set(taken) == {"_generate_plan_with_cache", "execute_work_item_with_checkpoint"}


# -- what the document states in words ------------------------------------------------------------------------------

CLASSES = {
    "TaskRunner": TaskRunner, "CheckpointManager": CheckpointManager, "LLMOutputCache": LLMOutputCache,
    "ToolLedger": ToolLedger,
}  # fmt: skip
METHODS = [
    (cls, *entry)
    for cls, section in re.findall(r"### (\w+) Methods\n(.*?)(?=\n#)", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    for entry in re.findall(r"^- `(\w+)\((.*?)\)`", section, re.MULTILINE)
]


@pytest.mark.parametrize(("cls", "method", "arguments"), METHODS, ids=str)
def test_the_api_reference_is_true(cls: str, method: str, arguments: str) -> None:
    parameters = inspect.signature(getattr(CLASSES[cls], method)).parameters
    for argument in filter(None, (each.strip() for each in arguments.split(","))):
        if argument == "...":
            continue
        name, _, default = argument.partition("=")
        assert name in parameters
        if default:
            assert parameters[name].default == int(default)


def test_all_methods_of_the_api_reference_were_found() -> None:
    assert len(METHODS) == 17
    assert {cls for cls, *_ in METHODS} == set(CLASSES)


def test_the_checkpoint_types_are_the_eight_of_the_document() -> None:
    section = DOCUMENT.read_text(encoding="utf-8").partition("## Valid Checkpoint Types")[2].partition("---")[0]
    assert tuple(re.findall(r"^- `(\w+)`", section, re.MULTILINE)) == CHECKPOINT_TYPES


def test_the_evidence_types_are_the_four_of_the_document() -> None:
    used = set(re.findall(r"EvidenceType\.(\w+)", DOCUMENT.read_text(encoding="utf-8")))
    assert used == set(EvidenceType.__members__)
    assert Evidence is checkpoints.Evidence


def test_the_durations_are_those_of_the_document() -> None:
    assert LLM_EXPIRES_S == 7 * 86400
    assert TOOL_EXPIRES_S == 30 * 86400


def test_the_tables_of_the_document_exist(conn: psycopg.Connection[Any]) -> None:
    for name in ("checkpoints", "idempotency_keys", "tasks", "work_items"):
        assert conn.execute("SELECT to_regclass('agentos.' || %s)", [name]).fetchone() != (None,)


@pytest.mark.parametrize("package", [checkpoints, idempotency, worker_pool], ids=lambda p: str(p.__name__))
def test_the_packages_have_the_readme_that_the_document_links_to(package: Any) -> None:
    where = "/".join(package.__name__.split(".")) + "/README.md"
    assert f"({where})" in DOCUMENT.read_text(encoding="utf-8")
    readme = Path(package.__file__).parent / "README.md"
    assert readme.read_text(encoding="utf-8").startswith("# ")


def test_the_document_names_only_what_can_be_imported() -> None:
    modules = set(re.findall(r"from (agentos[\w.]*) import", DOCUMENT.read_text(encoding="utf-8")))
    assert modules == {
        "agentos.core.runner", "agentos.core.task", "agentos.core.checkpoints", "agentos.core.idempotency",
        "agentos.core.worker_pool", "agentos.store",
    }  # fmt: skip
    assert runner.TaskRunner is TaskRunner
    assert worker_pool.LeaseManager is LeaseManager
