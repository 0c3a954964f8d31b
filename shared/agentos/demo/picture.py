"""The pictures of the report, as SVG drawn by hand: who worked on what and when, and how large the largest are."""

import html
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentos.demo.effects import Effect
from agentos.demo.stage import Kill, Notes

WIDTH, LEFT, RIGHT = 1000, 150, 20
ROW, GAP, TOP = 9, 12, 24
SHOWN = 24


@dataclass(frozen=True, slots=True)
class Span:
    """One process on one item. `cut`: it was killed there. `again`: another process had begun the item."""

    pid: int
    item: str
    began: float
    ended: float
    cut: bool
    again: bool


def spans(effects: Sequence[Effect], kill: Kill | None) -> list[Span]:
    """From the first to the last effect of each process on each item, as the log has it."""
    times: dict[tuple[int, str], list[float]] = defaultdict(list)
    for each in effects:
        times[each.pid, each.item] += [each.began, each.at]
    last = {item: max(end for (_, other), seen in times.items() if other == item for end in seen) for _, item in times}
    made, begun = [], set()
    for (pid, item), seen in sorted(times.items(), key=lambda each: min(each[1])):
        cut = kill is not None and pid == kill.pid and last[item] > kill.at
        end = kill.at if kill is not None and cut else max(seen)
        made.append(Span(pid, item, min(seen), end, cut, item in begun))
        begun.add(item)
    return made


def timeline(effects: Sequence[Effect], notes: Notes) -> str:
    """A row per process, a bar per item, and the moment of the kill."""
    drawn = spans(effects, notes.kill)
    if not drawn:
        return "<p>Nothing was done.</p>"
    start, end = min(span.began for span in drawn), max(span.ended for span in drawn)
    scale = (WIDTH - LEFT - RIGHT) / max(end - start, 0.001)
    parts, y = [], TOP
    for pid in dict.fromkeys(span.pid for span in drawn):
        mine = [span for span in drawn if span.pid == pid]
        rows = _stacked(mine)
        height = (max(rows) + 1) * ROW
        name = notes.workers.get(pid, "runs alone")
        killed = " ✕" if notes.kill is not None and notes.kill.pid == pid else ""
        parts.append(f'<text x="0" y="{y + height / 2 + 4:.0f}">{html.escape(name)} ({pid}){killed}</text>')
        parts += [
            _bar(span, LEFT + (span.began - start) * scale, y + row * ROW, scale)
            for span, row in zip(mine, rows, strict=True)
        ]
        y += height + GAP
    parts += _repairs(effects, start, scale, y)
    if notes.kill is not None:
        parts.append(_moment(LEFT + (notes.kill.at - start) * scale, y, f"SIGKILL {notes.kill.worker}"))
    parts += _seconds(end - start, scale, y)
    label = "Processes over time: which items each worked on, and where the kill cut it off"
    return f'<svg viewBox="0 0 {WIDTH} {y + 20}" role="img" aria-label="{label}">{"".join(parts)}</svg>{_LEGEND}'


_LEGEND = (
    '<p><span style="color:var(--run)">■</span> first attempt &ensp; <span style="color:var(--cut)">■</span> cut off '
    'by the kill &ensp; <span style="color:var(--again)">■</span> went on in another process &ensp; '
    '<span style="color:var(--cut)">◆</span> artifact repaired</p>'
)


def _stacked(mine: Sequence[Span]) -> list[int]:
    """The lowest free row for each, so that what ran at the same time stands one under the other."""
    free: list[float] = []
    rows = []
    for span in mine:
        row = next((n for n, until in enumerate(free) if until <= span.began), len(free))
        free[row : row + 1] = [span.ended]
        rows.append(row)
    return rows


def _bar(span: Span, x: float, y: float, scale: float) -> str:
    colour = "cut" if span.cut else "again" if span.again else "run"
    width = max((span.ended - span.began) * scale - 1, 2)
    told = f"{span.item}: {span.ended - span.began:.2f} s{', cut off' if span.cut else ''}"
    return (
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 2}" rx="2" fill="var(--{colour})">'
        f"<title>{html.escape(told)}</title></rect>"
    )


def _repairs(effects: Sequence[Effect], start: float, scale: float, y: float) -> list[str]:
    return [
        f'<text x="{LEFT + (each.at - start) * scale - 5:.1f}" y="{y}" style="fill:var(--cut)">◆'
        f"<title>repaired: {html.escape(each.effect)}</title></text>"
        for each in effects if each.repair
    ]  # fmt: skip


def _moment(x: float, bottom: float, name: str) -> str:
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{bottom}" stroke="var(--cut)" stroke-dasharray="4 3"/>'
        f'<text x="{x + 5:.1f}" y="{TOP - 10}" style="fill:var(--cut)">{html.escape(name)}</text>'
    )


def _seconds(length: float, scale: float, y: float) -> list[str]:
    step = next(step for step in (1, 2, 5, 10, 30, 60, 300, 1800, 86_400) if length / step <= 15)
    return [
        f'<text x="{LEFT + at * scale:.1f}" y="{y + 14}">{at} s</text>'
        f'<line x1="{LEFT + at * scale:.1f}" x2="{LEFT + at * scale:.1f}" y1="{TOP}" y2="{y}" stroke="var(--line)" '
        'stroke-opacity=".6"/>'
        for at in range(0, int(length) + 1, step)
    ]  # fmt: skip


def largest(audits: Sequence[dict[str, Any]]) -> str:
    """Bars for those with the most files."""
    shown = sorted(audits, key=lambda audit: -int(audit["files"]))[:SHOWN]
    longest = max((audit["files"] for audit in shown), default=0) or 1
    parts = []
    for row, audit in enumerate(shown):
        y, width = 4 + row * 16, (WIDTH - LEFT - 120) * audit["files"] / longest
        wrong = f", {audit['wrong']} wrong" if audit["wrong"] else ""
        colour = "cut" if wrong else "bar"
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 10}" text-anchor="end">{html.escape(audit["name"])}</text>'
            f'<rect x="{LEFT}" y="{y}" width="{max(width, 1):.1f}" height="12" rx="2" fill="var(--{colour})"/>'
            f'<text x="{LEFT + width + 6:.1f}" y="{y + 10}">{audit["files"]:,}{wrong}</text>'
        )
    height = 8 + len(shown) * 16
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Files verified">{"".join(parts)}</svg>'
