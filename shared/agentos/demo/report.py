"""report.md and report.html: what the audit found, and how it came through the kill."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentos.demo.effects import Effect
from agentos.demo.picture import largest, timeline
from agentos.demo.stage import Notes

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --dim: #667085; --line: #e2e6ee; --paper: #fff;
        --run: #4c7fd9; --again: #2f9e6e; --cut: #d2452d; --bar: #4c7fd9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9f0; --dim: #98a2b3; --line: #2b3240; --paper: #12161e; --run: #6f9df0; --again: #43c38c;
          --cut: #f0705a; --bar: #6f9df0; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
       max-width: 1080px; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p { color: var(--dim); margin: .2rem 0; }
.facts { display: flex; flex-wrap: wrap; gap: .8rem 2.2rem; margin: 1.2rem 0; }
.facts b { display: block; font-size: 1.5rem; color: var(--ink); } .facts span { color: var(--dim); }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--dim); font-weight: 500; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.wrong { color: var(--cut); font-weight: 600; } .again { color: var(--again); font-weight: 600; }
svg { width: 100%; height: auto; display: block; } svg text { font: 11px system-ui, sans-serif; fill: var(--dim); }
"""


@dataclass(frozen=True, slots=True)
class Report:
    """`audits`: the results of the items. `effects`: the log, up to now."""

    task_id: str
    audits: tuple[dict[str, Any], ...]
    effects: tuple[Effect, ...]
    notes: Notes

    def total(self, count: str) -> int:
        """The sum over all distributions."""
        return sum(audit[count] for audit in self.audits)

    @property
    def wrong(self) -> tuple[dict[str, Any], ...]:
        """Distributions with files that are not what RECORD says."""
        return tuple(audit for audit in self.audits if audit["wrong"])

    @property
    def recovered(self) -> tuple[dict[str, Any], ...]:
        """Distributions whose audit was finished by another process than the one that began it."""
        return tuple(audit for audit in self.audits if audit["attempt"] > 1)


def headline(report: Report) -> str:
    """The audit in one sentence."""
    verdict = "all as RECORD says" if not report.wrong else f"{report.total('wrong')} of them not as RECORD says"
    return (
        f"{len(report.audits)} distributions, {report.total('files'):,} files ({report.total('bytes') / 1e6:,.0f} MB) "
        f"hashed, {verdict}"
    )


def story(report: Report) -> str:
    """What happened on the way."""
    kill = report.notes.kill
    if kill is None:
        return "No worker was killed."
    return (
        f"{kill.worker} (pid {kill.pid}) was killed with SIGKILL while it audited {kill.item}, and one byte of its "
        f"checkpointed {kill.artifact} was changed. {len(report.recovered)} items were finished by other processes."
    )


def markdown(report: Report) -> str:
    """The report as text."""
    lines = [
        "# Audit of this Python environment", "", f"{headline(report)}.", "", story(report), "",
        "| distribution | version | files | wrong | licence | summary |", "| --- | --- | ---: | ---: | --- | --- |",
    ]  # fmt: skip
    for audit in by_name(report.audits):
        cells = (audit[name] for name in ("name", "version", "files", "wrong", "licence", "summary"))
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    for audit in report.audits:
        lines += [f"- {audit['name']} needs {each}, which is not installed" for each in audit["missing"]]
    if report.wrong:
        lines += ["", "## Files that are not as RECORD says", ""]
        lines += [f"- {audit['name']}: {shown}" for audit in report.wrong for shown in audit["shown"]]
    return "\n".join([*lines, "", f"Task `{report.task_id}`.", ""])


def html_page(report: Report) -> str:
    """The report as one self-contained page."""
    facts = (
        (f"{len(report.audits)}", "distributions"), (f"{report.total('files'):,}", "files hashed"),
        (f"{report.total('bytes') / 1e6:,.0f} MB", "read"), (f"{report.total('wrong')}", "not as RECORD says"),
        (f"{sum(len(audit['missing']) for audit in report.audits)}", "requirements missing"),
        (f"{len(report.recovered)}", "items recovered"),
    )  # fmt: skip
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Audit of this Python environment</title><style>{_STYLE}</style></head><body>
<h1>Audit of this Python environment</h1><p>{html.escape(headline(report))}</p>
<div class="facts">{"".join(f"<span><b>{number}</b>{html.escape(name)}</span>" for number, name in facts)}</div>
<h2>Who worked on what, and when</h2><p>{html.escape(story(report))}</p>
{timeline(report.effects, report.notes)}
<h2>The largest distributions, by files verified</h2>
{largest(report.audits)}
{_wrong(report.wrong)}{_missing(report.audits)}
<h2>All of them</h2>
<table><tr><th>distribution</th><th>version</th><th class="n">files</th><th class="n">wrong</th><th>licence</th>
<th>summary</th></tr>{"".join(_row(audit) for audit in by_name(report.audits))}</table>
<p>Task {html.escape(report.task_id)}. A green name was finished by another process than the one that began it.</p>
</body></html>
"""


def by_name(audits: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """In the order of a list one looks things up in."""
    return sorted(audits, key=lambda audit: str(audit["name"]))


def _row(audit: dict[str, Any]) -> str:
    mark = ' class="again"' if audit["attempt"] > 1 else ""
    wrong = f'<span class="wrong">{audit["wrong"]}</span>' if audit["wrong"] else "0"
    return (
        f"<tr><td{mark}>{html.escape(audit['name'])}</td><td>{html.escape(audit['version'])}</td>"
        f'<td class="n">{audit["files"]:,}</td><td class="n">{wrong}</td><td>{html.escape(audit["licence"])}</td>'
        f"<td>{html.escape(str(audit['summary']))}</td></tr>"
    )


def _missing(audits: Sequence[dict[str, Any]]) -> str:
    lines = [
        f"<li>{html.escape(audit['name'])}: {html.escape(each)}</li>" for audit in audits for each in audit["missing"]
    ]
    return f"<h2>Needed and not installed</h2><ul>{''.join(lines)}</ul>" if lines else ""


def _wrong(audits: Sequence[dict[str, Any]]) -> str:
    if not audits:
        return ""
    lines = (
        f"<li>{html.escape(audit['name'])}: {html.escape(each)}</li>" for audit in audits for each in audit["shown"]
    )
    return f"<h2>Files that are not as RECORD says</h2><ul>{''.join(lines)}</ul>"
