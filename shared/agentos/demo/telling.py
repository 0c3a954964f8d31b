"""The summary in words."""

import os
from collections import Counter

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agentos.demo.summary import Resumed, Summary


def tell(console: Console, summary: Summary) -> None:
    """Print everything that is to be known; the line `effects log: PATH` stands alone, unwrapped."""
    console.print()
    verdict = Text("Recovered.", "bold green") if summary.ok else Text("Not as it must be.", "bold red")
    console.print(verdict, Text(f" {summary.completed} of {summary.items} items in {summary.seconds:g} s"), sep="")
    if console.is_terminal:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows(summary):
            table.add_row(name, value)
        console.print(table)
    else:
        for name, value in rows(summary):
            console.print(f"{name + ':':<21}{value}", soft_wrap=True, markup=False)
    for problem in summary.problems:
        console.print(Text(f"problem: {problem}", "bold red"))
    console.print(f"report: {summary.report}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"effects log: {summary.effects_log}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"look closer: agentos show {summary.task_id}", soft_wrap=True, highlight=False, markup=False)


def rows(summary: Summary) -> list[tuple[str, Text]]:
    """Name and value of each figure."""
    told = [("items", f"{summary.items}, {summary.completed} completed")]
    if summary.killed_worker:
        told += [
            ("killed", f"{summary.killed_worker} with SIGKILL; leases taken back: {summary.items_held_at_kill}"),
            ("kill to resume", kill_to_resume(summary)),
            ("resumed from", resumed_from(summary.resumed)),
            ("artifact changed", f"{summary.corrupted}"),
        ]
    folder = os.path.dirname(summary.effects_log) + os.sep
    told += [
        ("checkpoint rejected", f"{each.item} #{each.checkpoint}: {each.reason.replace(folder, '')}")
        for each in summary.rejected
    ]
    again = ""
    if summary.llm_calls_made_again:
        again = f", {summary.llm_calls_made_again} of them again because the kill came before the answer"
    told += [
        ("tool calls", f"{summary.calls_executed} executed, {summary.calls_replayed} replayed, "
                       f"{summary.calls_repaired} repaired"),
        ("LLM calls", f"{summary.llm_calls_made} made{again}; {summary.llm_calls_saved} saved"),
        ("effects in the log", f"{summary.effects}, and {summary.effects_repaired} repaired under the same key"),
        ("lost / duplicated", f"{len(summary.lost)} / {len(summary.duplicated)}"),
    ]  # fmt: skip
    return [(name, Text(value)) for name, value in told]


def kill_to_resume(summary: Summary) -> str:
    """Seconds, of the first item and of the last."""
    if summary.seconds_to_first_resume is None:
        return "never"
    return (
        f"{summary.seconds_to_first_resume:.1f} s to the first item, {summary.seconds_to_last_resume:.1f} s to the last"
    )


def resumed_from(resumed: tuple[Resumed, ...]) -> str:
    """Each item and its checkpoint; and how many by type."""
    each = ", ".join(f"{one.item} #{one.checkpoint} ({one.checkpoint_type})" for one in resumed)
    count = Counter(one.checkpoint_type for one in resumed)
    return f"{each or 'none'}" + (f"  [{', '.join(f'{n} {kind}' for kind, n in count.items())}]" if each else "")
