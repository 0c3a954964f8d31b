"""The figures as a table for people and as JSON for machines."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.measure import Figure


def show(figures: Sequence[Figure], about: Mapping[str, str]) -> None:
    """Print the table and what holds."""
    table = Table("bar", "figure", "median", "turns", "x baseline", "held to", "", title="agentos bench")
    for number, figure in enumerate(figures):
        table.add_row(*_cells(figure), end_section=_ends(figures, number))
    console = Console(width=None if Console().is_terminal else 150)
    console.print(table)
    console.print(escape(", ".join(f"{name} {value}" for name, value in about.items())), style="dim")
    held = [figure.holds for figure in figures if figure.bar is not None]
    console.print(f"{sum(map(bool, held))} of {len(held)} bars hold. Ratios are medians over the turns of one run.")


def _ends(figures: Sequence[Figure], number: int) -> bool:
    return number + 1 < len(figures) and figures[number + 1].issue != figures[number].issue


def _cells(figure: Figure) -> list[str]:
    turns = "" if figure.low is None or figure.high is None else f"{_number(figure.low)} … {_number(figure.high)}"
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f} x {figure.baseline}"
    verdict = {True: "[green]holds[/]", False: "[bold red]MISSED[/]", None: ""}[figure.holds]
    bar = "" if figure.bar is None else str(figure.bar)
    return [figure.issue, figure.name, f"{_number(figure.value)} {figure.unit}".rstrip(), turns, ratio, bar, verdict]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def as_json(figures: Sequence[Figure], about: Mapping[str, str]) -> str:
    """Everything, for a machine."""
    rows = [{**asdict(figure), "bar": figure.bar and str(figure.bar), "holds": figure.holds} for figure in figures]
    return json.dumps({"about": dict(about), "figures": rows}, indent=2)


def write(path: Path, figures: Sequence[Figure], about: Mapping[str, str]) -> None:
    """Write the JSON to a file."""
    path.write_text(as_json(figures, about) + "\n")
