"""A coding agent: it plans, edits files, runs the tests, asks a person, publishes. Kill its workers whenever you like.

In this folder:
    agentos up --app coding_agent:app                 # database, coordinator, worker; kill -9 the worker while it works
    python coding_agent.py                            # in another terminal; it asks before it publishes
    agentos approve TASK                              # in a third

The model is played by `write_function`; give `ctx.llm` no `generate` to ask the endpoint of AGENTOS_LLM_BASE_URL.
"""

import hashlib
import sys
import time
from pathlib import Path
from typing import Any

from agentos.core.app import NOT_DONE, App, Done, TaskContext, ToolCall
from agentos.core.evidence import Evidence, EvidenceType

app = App()

FUNCTIONS = {
    "add": "a + b", "sub": "a - b", "mul": "a * b", "div": "a / b", "mod": "a % b", "power": "a ** b",
    "floor": "a // b", "least": "min(a, b)", "most": "max(a, b)", "both": "a & b", "either": "a | b",
    "shift": "a << b",
}  # fmt: skip


# -- tools: what touches the world says how to find out, after a crash, whether it happened --


def journal(workspace: str) -> Path:
    """One line for each effect: a line is written whole or not at all."""
    return Path(workspace, "journal.log")


def happened(call: ToolCall, arguments: dict[str, Any]) -> Any:
    """The probe of both tools: the idempotency key stays the same however often the call is tried."""
    log = journal(arguments["workspace"])
    done = log.exists() and f" {call.idempotency_key}\n" in log.read_text()
    return Done({"path": arguments["path"]}) if done else NOT_DONE


def produced(arguments: dict[str, Any]) -> list[Evidence]:
    """A recorded edit is replayed only while the file still has what it wrote; otherwise the edit is done again."""
    return [file_evidence(Path(arguments["workspace"], arguments["path"]), arguments["text"])]


@app.tool("edit", on_doubt="probe", probe=happened)
def edit(call: ToolCall, arguments: dict[str, Any]) -> dict[str, Any]:
    file = Path(arguments["workspace"], arguments["path"])
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{call.idempotency_key[:8]}")
    draft.write_text(arguments["text"])
    draft.replace(file)
    note(arguments["workspace"], f"edited {arguments['path']}", call)
    return {"path": arguments["path"]}


@app.tool("publish", on_doubt="probe", probe=happened)
def publish(call: ToolCall, arguments: dict[str, Any]) -> dict[str, Any]:
    note(arguments["workspace"], f"published {arguments['path']}", call)
    return {"path": arguments["path"]}


def note(workspace: str, what: str, call: ToolCall) -> None:
    with journal(workspace).open("a") as log:
        log.write(f"{what} {call.idempotency_key}\n")


# -- the agent --


@app.task("code")
async def code(ctx: TaskContext, workspace: str) -> dict[str, Any]:
    """Write a small calculator, function by function, each with its test; publish it if a person agrees."""
    plan = await ctx.llm("plan", prompt="Plan a calculator", generate=lambda _prompt: list(FUNCTIONS))
    state = ctx.snapshot or {"done": []}  # None on the first run; after a kill, where the last checkpoint stood
    for name in plan[len(state["done"]) :]:
        source = await ctx.llm("write", prompt=f"Write {name}(a, b)", generate=write_function)
        files = {f"{name}.py": source, f"test_{name}.py": write_test(name)}
        for path, text in files.items():
            await ctx.tool("edit", {"workspace": workspace, "path": path, "text": text})
        tested = await ctx.tool(
            "bash",
            {"command": [sys.executable, "-m", "unittest", f"test_{name}"], "cwd": workspace},
            on_doubt="retry",
        )
        if tested["exit_code"]:
            raise RuntimeError(f"the tests of {name} fail: {tested['stderr']}")
        state["done"].append(name)
        evidence = [file_evidence(Path(workspace, path), text) for path, text in files.items()]
        await ctx.checkpoint("iteration_end", state, evidence=evidence)
        ctx.progress(len(state["done"]), len(plan), name)
    await ctx.approval("Publish the calculator?", shown={"functions": state["done"]}, timeout_s=86_400)
    await ctx.tool("publish", {"workspace": workspace, "path": "calculator"}, key="publish")
    return {"functions": state["done"]}


def write_function(prompt: str) -> str:
    """The model: slow enough to be killed while it thinks."""
    time.sleep(0.2)
    name = prompt.removeprefix("Write ").partition("(")[0]
    return f"def {name}(a, b):\n    return {FUNCTIONS[name]}\n"


def write_test(name: str) -> str:
    return (
        f"import unittest\n\nimport {name}\n\n\nclass Test(unittest.TestCase):\n    def test(self):\n"
        f"        a, b = 7, 2\n        self.assertEqual({name}.{name}(a, b), {FUNCTIONS[name]})\n"
    )


def file_evidence(file: Path, text: str) -> Evidence:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Evidence(EvidenceType.FILE_SHA256, f"{file.name} is as written", {"path": str(file), "sha256": digest})


if __name__ == "__main__":
    handle = app.submit("code", {"workspace": str(Path("calculator").absolute())})
    print(f"follow it: agentos follow {handle.task_id}\nanswer it: agentos approve {handle.task_id}")
    print(handle.result())
