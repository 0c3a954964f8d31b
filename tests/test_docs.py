"""Every page tells the truth: its Python runs, and the commands and options that it names exist.

A page's blocks are executed as they stand, in order, in one namespace, with a worker of its `app` between them. What
a page needs from outside (a submit, a signal, an answer) is in `PLAYED`; every task that a page defines must have been
run in the end. quick-reference.md and testing.md have tests of their own.
"""

import asyncio
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import typer
from tests.pages import ROOT, Shown, blocks, commands, pages

from agentos.cli.__main__ import build
from agentos.cli.catalogue import COMMANDS
from agentos.coordinator.options import parse_options
from agentos.core.app import App
from agentos.core.app.cron import declare
from agentos.core.llm import prices
from agentos.core.task import TaskManager
from agentos.store import codec
from agentos.store.calls import budgets
from agentos.store.calls.cron import run_cron
from agentos.store.calls.timeline import findings
from agentos.store.connect import connect
from agentos.store.run import drive
from agentos.store.settings import Settings, load_settings
from agentos.testing import Pool, crash_at
from agentos.testing.crashtest import PRIMITIVES
from agentos.testing.databases import Databases
from agentos.worker.command import cli as worker_cli

ELSEWHERE = {"quick-reference.md", "retries-and-isolation.md", "testing.md"}


def name_of(page: Path) -> str:
    """The file's name for a page of docs/; otherwise its path."""
    of_docs = page.parent.name == "docs" and page.name != "README.md"
    return page.name if of_docs else str(page.relative_to(ROOT))


PAGES = {name_of(page): page for page in pages()}
FINISHED = """
    SELECT DISTINCT kind
      FROM agentos.outcomes JOIN agentos.work_items USING (item_id) JOIN agentos.lanes USING (lane)
"""
RUN = [name for name, page in PAGES.items() if name not in ELSEWHERE and blocks(page, "python")]


@dataclass(slots=True)
class Played:
    """A page while it is run: its names, and the pool that serves its app."""

    page: Path
    pool: Pool
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "example"})
    block: int = 0

    @property
    def app(self) -> App:
        """The page's `app`."""
        found: App = self.names["app"]
        return found

    def next(self) -> None:
        """Execute the next block."""
        block = blocks(self.page, "python")[self.block]
        self.block += 1
        code = compile("\n" * block.line + block.text, str(self.page), "exec")
        exec(code, self.names)  # noqa: S102  the page's own code

    def rest(self) -> None:
        """Execute the blocks that are left, with a worker between them."""
        while self.block < len(blocks(self.page, "python")):
            self.next()
            self.drain()

    def drain(self, **options: Any) -> None:
        """Work until nothing of the page's app is ready."""
        if "app" in self.names:
            self.pool.drain(self.app, **options)

    def result(self, kind: str, payload: Any, **submit: Any) -> Any:
        """What a task of this kind comes to when nothing disturbs it."""
        handle = self.app.submit(kind, payload, **submit)
        self.drain()
        return handle.result(0)


# -- what the pages need from outside, and what they come to --------------------------------------------------------


def first_agent(page: Played) -> None:
    page.rest()
    ended = page.result("research", {"topic": "leases"})
    assert ended["done"] == [f"step {step} of leases" for step in range(3)]


def model_calls(page: Played) -> None:
    page.rest()
    assert page.result("explain", {"topic": "tides"}, task_id="t") == "Tides follow the moon."
    (used,) = page.pool.database.run(budgets.usage_of(["model"], task_id="t"))
    assert (used.model, used.calls, str(used.cost.normalize())) == ("my-model", 1, "0.00008")
    assert {line.name for line in page.pool.database.run(budgets.budget_of("t"))} == {"max_cost", "max_calls"}


def operations(page: Played) -> None:
    page.rest()
    first, again = page.names["take"](7), page.names["take"](7)
    assert (first.created, again.created, again.task_id) == (True, False, first.task_id)
    page.drain()
    assert first.status() == "failed"
    assert page.names["tea_arrived"]() == [first.task_id]
    page.drain()
    assert first.result(0) == "order 7 is on its way"


def progress(page: Played) -> None:
    page.next()
    assert page.result("index", {"files": ["a", "b"]}, task_id="task-123") == 2
    page.rest()


def tools(page: Played) -> None:
    page.rest()
    assert page.result("order", {"amount": 12}) == {"charged": 12}


def transactions(page: Played) -> None:
    with connect(page.pool.dsn) as conn:
        conn.execute("CREATE TABLE payments (eur integer); CREATE TABLE orders (id integer)")
    page.rest()
    assert page.result("pay", {"eur": 5}) == {"paid": 5}
    assert page.pool.rows("SELECT eur FROM payments") == [(5,)]
    handle = asyncio.run(taken(page))
    page.drain()
    assert (handle.result(0), page.pool.rows("SELECT id FROM orders")) == ("order 7 is on its way", [(7,)])


async def taken(page: Played) -> Any:
    conn = await asyncpg.connect(page.pool.dsn)
    try:
        return await page.names["take"](conn, 7)
    finally:
        await conn.close()


def rewind(page: Played) -> None:
    page.rest()
    handle = page.app.submit("steps")
    page.drain()
    assert [call.becomes for call in handle.rewind(1, dry_run=True).calls] == ["replayed", "replayed"]
    assert handle.result(0) == ["1", "2", "3"]


def fork(page: Played) -> None:
    page.rest()
    handle = page.app.submit("report", {"topic": "tides"})
    page.drain()
    made = page.names["try_again"](handle)
    page.drain()
    assert made.task_id != handle.task_id
    assert made.result(0) == handle.result(0) == {"published": "WRITE ABOUT TIDES"}


def waits(page: Played) -> None:
    page.rest()
    handle = page.app.submit("order", {"amount": 12})
    handle.signal("paid", {"by": "card"})
    page.drain()
    page.pool.clock.advance(3)
    page.drain()
    handle.answer(by="ann", option="sea")
    page.drain()
    assert handle.result(0) == {
        "checked": ["stock is fine", "address is fine"], "way": "sea", "paid": {"by": "card"},
    }  # fmt: skip
    begun = {kind: page.app.submit(kind) for kind in ("wrong", "right")}
    for handle in begun.values():
        page.drain()
        handle.signal("go", "gone")
    page.drain()
    assert (begun["right"].result(0), begun["wrong"].status()) == ("gone", "waiting")
    told = {each.data["task_id"] for each in page.pool.database.run(findings()) if each.finding == "waits_again"}
    assert told == {begun["wrong"].task_id}
    begun["wrong"].cancel()


def sealing(page: Played) -> None:
    page.rest()
    assert page.result("greet", {"name": "Ada"}) == "hello Ada"
    payload = page.pool.rows("SELECT payload #>> '{$sealed,by}' FROM agentos.work_items")
    assert payload == [("key-2026-11",)]


def checkpoints(page: Played) -> None:
    TaskManager().create_task("the task of the page", task_id="task-123")
    Path("report.md").write_text("all is well")
    page.rest()
    assert page.names["manager"].verify_checkpoint(page.names["checkpoint"].checkpoint_id)


def evidence(page: Played) -> None:
    page.rest()
    handle = page.app.submit("write")
    with crash_at("after:commit_checkpoint"):
        page.drain()
    page.drain()
    assert handle.result(0) == "(car (list 1 2))"
    (check,) = handle.verdicts()
    assert [claim.evidence_type for claim in check.claims] == ["artifact_exists", "balanced"]


def cron(page: Played) -> None:
    page.rest()
    assert sorted(page.app.cron_entries) == ["report", "tidy"]
    drive(page.pool.database, declare(tuple(page.app.cron_entries.values())))
    for name in page.app.cron_entries:
        page.pool.database.run(run_cron(name, f"by-hand-{name}"))
    page.drain()
    assert str(page.app.handle("by-hand-report").result(0)).endswith("Z for team")


def purge(page: Played) -> None:
    page.rest()
    handle = page.app.submit("letter", {"name": "Ann"})
    page.drain()
    assert handle.result(0) == "Dear Ann"
    assert page.names["forget"](handle.task_id) == 1


def idempotency(page: Played) -> None:
    from agentos.core.idempotency import LLMOutputCache, ToolLedger  # noqa: PLC0415  the names that the page uses

    TaskManager().create_task("the task of the page", task_id="task-123")
    page.names |= {
        "LLMOutputCache": LLMOutputCache, "ToolLedger": ToolLedger, "prompt": "Plan: audit the logs",
        "call_llm": lambda prompt: f"a plan for {prompt}", "run_bash_command": lambda command: {"exit_code": 0},
    }  # fmt: skip
    page.rest()
    assert (page.names["plan"], page.names["result"]["exit_code"]) == ("a plan for Plan: audit the logs", 0)


def leases(page: Played) -> None:
    handle = App().submit("report", {"month": 11})
    page.names["work"] = lambda payload: payload["month"] + 1
    page.rest()
    assert handle.result(0) == 12


def versions(page: Played) -> None:
    page.rest()
    assert page.result("report", {"month": 11}) == "month 11"
    assert page.result("report", {"month": 10}, version=2) == "month 10, as it was"
    waits = page.app.submit("report", {"month": 9}, version=1)
    page.drain()
    assert waits.status() == "created"


def sandbox(page: Played) -> None:
    page.rest()
    assert page.result("build", {"target": "all"}) == {"made": "making all\n", "exit_code": 0, "last": "100000"}


PLAYED: dict[str, Callable[[Played], None]] = {
    "README.md": first_agent,
    "checkpoints-and-evidence.md": evidence,
    "llm.md": model_calls,
    "progress.md": progress,
    "purge.md": purge,
    "tasks.md": operations,
    "codec.md": sealing,
    "cron.md": cron,
    "fork.md": fork,
    "rewind.md": rewind,
    "tools-and-doubt.md": tools,
    "tools-sandbox.md": sandbox,
    "transactions.md": transactions,
    "versions.md": versions,
    "waits.md": waits,
    "shared/agentos/core/checkpoints/README.md": checkpoints,
    "shared/agentos/core/idempotency/README.md": idempotency,
    "shared/agentos/core/worker_pool/README.md": leases,
}


@pytest.mark.parametrize("name", RUN)
def test_the_programs_of_the_page_run(
    name: str, agentos_pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prices, "_given", {})
    monkeypatch.setattr(codec, "_codecs", None)  # one that the page uses goes with it
    monkeypatch.chdir(tmp_path)
    page = Played(PAGES[name], agentos_pool)
    PLAYED.get(name, Played.rest)(page)
    assert page.block == len(blocks(page.page, "python"))
    defined = set(page.app.handlers) if "app" in page.names else set()
    ran = {kind for (kind,) in agentos_pool.rows(FINISHED)}
    assert defined <= ran, f"say in PLAYED of {__name__} how these are run"


def test_the_pages_that_are_played_are_there() -> None:
    assert PLAYED.keys() <= set(RUN)
    assert PAGES.keys() >= ELSEWHERE


# -- commands ---------------------------------------------------------------------------------------------------------


def options_of(command: Any) -> set[str]:
    """Every option of a command, and of the commands of a group."""
    found = {"--help"} | {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    for each in getattr(command, "commands", {}).values():
        found |= options_of(each)
    return found


@cache
def known_options(program: str, command: str) -> set[str]:
    """The options of `agentos COMMAND`, or of a process."""
    if program == "agentos-worker":
        return options_of(typer.main.get_command(worker_cli))
    if program == "agentos":
        root: Any = typer.main.get_command(build(command))
        return options_of(root.commands[command]) if command else options_of(root)
    return set(re.findall(r"--[a-z-]+", coordinator_help()))


def coordinator_help() -> str:
    said = io.StringIO()
    with suppress(SystemExit), redirect_stdout(said):
        parse_options(["--help"])
    return said.getvalue()


SHOWN = [(name, shown) for name, page in PAGES.items() for shown in commands(page)]


@pytest.mark.parametrize(
    ("page", "shown"), SHOWN, ids=[f"{page}: {shown.program} {shown.arguments}" for page, shown in SHOWN]
)
def test_the_command_exists_with_its_options(page: str, shown: Shown) -> None:
    if shown.program == "agentos" and shown.command:
        assert shown.command in {entry.name for entry in COMMANDS}
    assert shown.options <= known_options(shown.program, shown.command)


def test_commands_were_found_on_the_pages() -> None:
    assert len(SHOWN) > 40
    assert {page for page, _ in SHOWN} >= {"README.md", "cli.md", "waits.md"}


def test_every_command_is_in_the_page_of_the_commands() -> None:
    listed = re.findall(r"^\| `agentos ([a-z]+)", PAGES["cli.md"].read_text("utf-8"), flags=re.MULTILINE)
    assert sorted(set(listed)) == sorted(entry.name for entry in COMMANDS)


# -- links ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_the_links_of_the_page_lead_somewhere(name: str) -> None:
    page = PAGES[name]
    if name == "quick-reference.md":  # the users' document: its links are from the root of the packages
        return
    for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        assert (page.parent / link).exists(), link


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    linked = re.findall(r"\]\(([\w-]+\.md)\)", index)
    assert sorted(linked) == sorted(page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md")


# -- testing.md: its two programs are examples/, run by a pytest of their own ---------------------------------------


def test_the_page_on_testing_shows_the_examples() -> None:
    shown = [block.text for block in blocks(PAGES["testing.md"], "python")]
    assert shown == [
        (ROOT / "examples" / name).read_text("utf-8") for name in ("order_agent.py", "test_order_agent.py")
    ]


def run_pytest(folder: Path, agentos_databases: Databases) -> "subprocess.CompletedProcess[str]":
    """pytest in a process of its own, as a user runs it."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    environment = {**os.environ, "AGENTOS_TEST_DSN": agentos_databases.admin_dsn}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False
    )


@pytest.mark.timeout(400)
def test_the_crash_test_of_the_example_passes(agentos_databases: Databases, tmp_path: Path) -> None:
    for name in ("order_agent.py", "test_order_agent.py"):
        shutil.copy(ROOT / "examples" / name, tmp_path)
    ran = run_pytest(tmp_path, agentos_databases)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "6 passed" in ran.stdout


@pytest.mark.timeout(400)
def test_without_its_probe_the_example_fails_as_the_page_says(agentos_databases: Databases, tmp_path: Path) -> None:
    agent = (ROOT / "examples" / "order_agent.py").read_text("utf-8")
    (tmp_path / "order_agent.py").write_text(agent.replace(', on_doubt="probe", probe=look', ""))
    test = (ROOT / "examples" / "test_order_agent.py").read_text("utf-8")
    test = test.replace('"when", CRASH_TIMES', '"when", ["before"]').replace('["wait", ', "[")
    (tmp_path / "test_order_agent.py").write_text(test)
    ran = run_pytest(tmp_path, agentos_databases)
    assert "1 failed in" in ran.stdout, ran.stdout + ran.stderr
    assert "FAILED test_order_agent.py::test_the_customer_is_charged_once[ledger_finish-before]" in ran.stdout


# -- guarantees.md ---------------------------------------------------------------------------------------

SHOWN_BY = [
    name
    for line in PAGES["guarantees.md"].read_text("utf-8").splitlines()
    if line.startswith("| ")
    for name in re.findall(r"`([a-z_0-9]+)`", line.rstrip("| ").rpartition("|")[2])
]


def test_every_scenario_of_crashtest_is_in_the_table() -> None:
    assert {each.name for each in PRIMITIVES} <= set(SHOWN_BY)


def test_what_shows_a_guarantee_exists() -> None:
    sources = "\n".join(file.read_text("utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"^(?:async )?def (test_\w+)", sources, flags=re.MULTILINE))
    assert set(SHOWN_BY) <= there | {each.name for each in PRIMITIVES}


def test_every_guarantee_says_what_shows_it() -> None:
    rows = [line for line in PAGES["guarantees.md"].read_text("utf-8").splitlines() if line.startswith("| ")]
    assert [row for row in rows if "`" not in row.rstrip("| ").rpartition("|")[2] and "shown by" not in row
            and "---" not in row] == []  # fmt: skip


# -- settings ---------------------------------------------------------------------------------------------------------


def test_every_setting_is_in_the_page_of_the_settings_with_its_default() -> None:
    rows = re.findall(r"^\| `AGENTOS_(\w+)` \| (\S*)", PAGES["settings.md"].read_text("utf-8"), flags=re.MULTILINE)
    told = {name.lower(): default.strip("|") for name, default in rows if name != "SCHEMA"}
    assert told.keys() == Settings.model_fields.keys()
    plain = (bool, int, float, str)
    fixed = {name: each.default for name, each in Settings.model_fields.items() if isinstance(each.default, plain)}
    assert {name: told[name] for name in fixed} == {
        name: f"{value:g}" if type(value) in (int, float) else str(value).lower() for name, value in fixed.items()
    }
    assert told["beat_s"] == f"{load_settings().beat_s:g}"
    assert [name for name, default in told.items() if default and name not in {*fixed, "beat_s"}] == []
