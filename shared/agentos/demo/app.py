"""The handlers that the demo's workers run: `agentos-worker --app agentos.demo.app:app`.

One item plans, one audits each distribution, one reports:

    audit.plan ─▶ audit.distribution (n of them) ─▶ audit.report
"""

import asyncio
import json
from pathlib import Path
from typing import Any

from agentos.core.app import App, TaskContext
from agentos.core.evidence import Evidence
from agentos.demo import artifacts, effects, tools
from agentos.demo.report import Report, html_page, markdown
from agentos.demo.stage import read_notes

SLICE = 100
"""Files that one call of verify_files looks at."""
REPORT_KEY = "(report)"

app = App()
tools.register(app)


@app.task("audit.plan")
async def plan(ctx: TaskContext, folder: str, pace_s: float, limit: int | None = None) -> dict[str, Any]:
    """List the distributions; one item for each, and one for the report that needs them all."""
    listed = await ctx.tool("list_distributions", {"limit": limit})
    audits: list[dict[str, Any]] = [
        {
            "key": each["name"], "kind": "audit.distribution",
            "payload": {"folder": folder, "pace_s": pace_s, "distribution": each},
        }
        for each in listed["distributions"]
    ]  # fmt: skip
    needs = [audit["key"] for audit in audits]
    report = {"key": REPORT_KEY, "kind": "audit.report", "payload": {"folder": folder}, "depends_on": needs}
    return {"items": await ctx.expand([*audits, report])}


@app.task("audit.distribution")
async def distribution(
    ctx: TaskContext, folder: str, pace_s: float, distribution: dict[str, Any]
) -> dict[str, Any]:  # fmt: skip
    """Verify, write the findings down, ask for a note and a summary, write the result: a checkpoint after each."""
    audit = Audit(ctx, folder, distribution)
    await audit.verify()
    await audit.write_findings()
    await audit.ask_about_licence()
    await asyncio.sleep(pace_s)  # a person is to see it, and the kill is to find it between two answers, not inside one
    await audit.write_result()
    return audit.state


def slices(files: int) -> list[tuple[int, int]]:
    """The calls that verify so many files: (first, last), at least one."""
    return [(first, min(first + SLICE, files)) for first in range(0, files, SLICE)] or [(0, 0)]


def verify_command(name: str, first: int, last: int, files: int) -> str:
    """What a call of verify_files is called."""
    return f"verify {name} {first + 1 if last else 0}-{last} of {files}"


def requirements_command(name: str) -> str:
    """What a call of check_requirements is called."""
    return f"check what {name} needs"


class Audit:
    """One item. `state` is its snapshot; each step does nothing when the state says that it is done."""

    def __init__(self, ctx: TaskContext, folder: str, known: dict[str, Any]) -> None:
        self.ctx = ctx
        self.folder = folder
        self.known = known
        self.name: str = known["name"]
        self.state: dict[str, Any] = ctx.snapshot or {
            "name": self.name, "version": known["version"], "licence": known["licence"], "next": 0, "files": 0,
            "bytes": 0, "without_hash": 0, "wrong": 0, "shown": [],
        }  # fmt: skip
        self.state["attempt"] = ctx.attempt

    async def verify(self) -> None:
        """Slice by slice, a call and a checkpoint each."""
        for first, last in slices(self.known["files"])[self.state["next"] :]:
            command = verify_command(self.name, first, last, self.known["files"])
            wanted = {"item": self.name, "site": self.known["site"], "first": first, "last": last}
            found = await self.ctx.tool("verify_files", {"command": command, "folder": self.folder, **wanted})
            for count in ("files", "bytes", "wrong"):
                self.state[count] += found[count]
            self.state["shown"] += found["shown"]
            self.state["without_hash"] = found["without_hash"]
            self.state["next"] += 1
            await self.ctx.checkpoint("iteration_end", self.state, [artifacts.exit_of(command, found)])

    async def write_findings(self) -> None:
        """What was found, before anybody comments on it. Two calls and one checkpoint."""
        if "findings" not in self.state:
            command = requirements_command(self.name)
            wanted = {"command": command, "folder": self.folder, "item": self.name, "site": self.known["site"]}
            needed = await self.ctx.tool("check_requirements", wanted)
            self.state["missing"] = needed["missing"]
            told = {key: value for key, value in self.state.items() if key not in ("next", "attempt")}
            self.state["findings"] = await self.write(f"{self.name}.findings.json", told)
            await self.ctx.checkpoint("tool_executed", self.state, self.evidence("findings"))

    async def ask_about_licence(self) -> None:
        """Many distributions share a licence, so one paid answer serves them all."""
        if "licence_note" not in self.state:
            prompt = f"{self.known['licence']}: what does this licence ask of whoever ships the code? One line."
            self.state["licence_note"] = await self.ctx.llm("licence", prompt=prompt)
            await self.ctx.checkpoint("llm_response", self.state, self.evidence("findings"))

    async def write_result(self) -> None:
        """The one-line summary, and everything in one artifact."""
        if "result" not in self.state:
            prompt = (
                f"{self.name} {self.known['version']}: {self.known['about'] or 'no description'} "
                f"[{self.state['files']} files verified, {self.state['wrong']} differ] One line for an audit."
            )
            self.state["summary"] = await self.ctx.llm("summary", prompt=prompt)
            told = {key: value for key, value in self.state.items() if key not in ("next", "attempt")}
            self.state["result"] = await self.write(f"{self.name}.json", told)
            await self.ctx.checkpoint("state_transition", self.state, self.evidence("findings", "result"))

    async def write(self, name: str, told: dict[str, Any]) -> dict[str, Any]:
        """An artifact of this item."""
        text = json.dumps(told, indent=1, sort_keys=True)
        return await write_file(self.ctx, self.folder, self.name, f"artifacts/{name}", text)

    def evidence(self, *names: str) -> list[Evidence]:
        """What a checkpoint after these artifacts claims."""
        claims: list[Evidence] = []
        for artifact in (self.state[name] for name in names):
            claims += [artifacts.content(artifact), artifacts.existence(artifact)]
            claims.append(artifacts.exit_of(f"write artifacts/{Path(artifact['path']).name}", artifact))
        return claims


async def write_file(
    ctx: TaskContext, folder: str, item: str, name: str, text: str, *, key: str | None = None
) -> dict[str, Any]:  # fmt: skip
    """A file in the demo's folder, through the ledger."""
    wanted = {"command": f"write {name}", "folder": folder, "item": item, "name": name, "text": text}
    return await ctx.tool("write_artifact", wanted, key=key)


@app.task("audit.report")
async def report(ctx: TaskContext, folder: str) -> dict[str, Any]:
    """report.md and report.html. Its calls have keys: told again a moment later, they are the same calls."""
    here = Path(folder)
    told = Report(ctx.task_id, tuple((await ctx.results()).values()), effects.read(here), read_notes(here))
    written = {}
    for name, render in (("report.md", markdown), ("report.html", html_page)):
        written[name] = await write_file(ctx, folder, REPORT_KEY, name, render(told), key=name)
        claims = [claim(written[name]) for claim in (artifacts.content, artifacts.existence)]
        await ctx.checkpoint("tool_executed", written, claims)
    return {name: artifact["path"] for name, artifact in written.items()}
