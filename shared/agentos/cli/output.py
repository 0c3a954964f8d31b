"""Printing: tables and colours on a terminal, plain columns into a pipe, JSON for programs."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, OverflowMethod
from rich.table import Table
from rich.text import Text

# What tasks and models wrote is printed as it is: no markup, emoji codes or highlights are read into it.
out = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)

STYLES = {
    "alive": "green", "completed": "green", "finished": "green", "holds": "green",
    "created": "dim", "held": "cyan", "ready": "cyan", "running": "cyan", "stopped": "dim", "superseded": "dim",
    "begun": "yellow", "parked": "yellow", "draining": "yellow", "scheduled": "yellow", "waiting": "yellow",
    "paused": "yellow",
    "dead": "red", "does not hold": "red", "failed": "red", "in doubt": "bold red", "late": "red", "quarantined": "red",
    "cancelled": "magenta", "skipped": "magenta",
}  # fmt: skip

Row = Sequence[object]
GAP, NARROWEST = 2, 4


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    print(json.dumps(plain(value), indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))


def plain(value: object) -> Any:
    """`value` as JSON has it. Worker ids are strings: they have 63 bits, and JSON readers often keep only 53."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {
            key: str(item) if key == "worker_id" and item is not None else plain(item) for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def print_table(columns: Sequence[str], rows: Sequence[Row], *, title: str | None = None, fold: bool = True) -> None:
    """Rows under their columns; nothing when there are none. What a terminal has no room for is folded, or cut."""
    if not rows:
        return
    if out.is_terminal:
        out.print(make_table(columns, rows, title=title, fold=fold), soft_wrap=False, crop=False)
        return
    if title:
        print(f"# {title}")
    cells = [[column.upper() for column in columns], *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(columns))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def make_table(columns: Sequence[str], rows: Sequence[Row], *, title: str | None = None, fold: bool = False) -> Table:
    """The same for a terminal, without the columns that are empty. An id is never folded or cut: others give way."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    filled = [n for n in range(len(columns)) if any(row[n] for row in cells)]
    natural = [max(cell_len(text) for text in (columns[n], *(row[n] for row in cells))) for n in filled]
    room = out.width - GAP * (len(filled) - 1)
    widths = _fitted(natural, [columns[n] == "task" for n in filled], room)
    table = Table(
        title=title, title_justify="left", title_style="bold", header_style="bold", box=SIMPLE_HEAD, show_edge=False,
        padding=(0, GAP - 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    for n, width in zip(filled, widths, strict=True):
        overflow: OverflowMethod = "fold" if fold else "ellipsis"
        # Not width=: rich would cut such a column when the terminal is narrower than the table.
        table.add_column(columns[n], min_width=width, max_width=width, no_wrap=not fold, overflow=overflow)
    for row in cells:
        table.add_row(*(styled(row[n]) for n in filled))
    return table


def _fitted(natural: Sequence[int], kept: Sequence[bool], room: int) -> list[int]:
    """The widths: the widest columns give way first, none below `NARROWEST`, and the kept ones not at all."""
    widths = list(natural)
    giving = [n for n, keep in enumerate(kept) if not keep]
    while sum(widths) > room and giving:
        widest = max(giving, key=lambda n: widths[n])
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    return widths


def styled(text: str) -> Text:
    """`text` in the colour of the status it names, if it names one. What looks like markup in it stays as it is."""
    return Text(text, style=STYLES.get(text, ""))


def one_line(cell: object) -> str:
    """A cell of a table: no line breaks, no control characters that a terminal would obey."""
    if cell is None:
        return ""
    if isinstance(cell, datetime):
        return clock_time(cell)
    return "".join(char if char.isprintable() else " " for char in str(cell))


def compact(value: object, limit: int = 100) -> str:
    """A value as JSON on one line, cut off after `limit` characters."""
    text = value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)
    text = one_line(text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def gist(value: object, limit: int = 100) -> str:
    """The first line of a text, cut off after `limit` characters; of another value its JSON."""
    first = next(iter(value.strip().splitlines()), "") if isinstance(value, str) else value
    return compact(first, limit)


def clock_time(at: datetime) -> str:
    """The moment in local time, with the date when it is not today."""
    local = at.astimezone()
    return local.strftime("%H:%M:%S" if local.date() == datetime.now().astimezone().date() else "%Y-%m-%d %H:%M:%S")


def ago(at: datetime | None) -> str:
    """How long ago, by this host's clock."""
    return "" if at is None else f"{duration((datetime.now(UTC) - at).total_seconds())} ago"


def duration(seconds: float) -> str:
    """Seconds for people: 0.42 s, 12 s, 3 min, 2.5 h, 4 d."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.2f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count} B" if count < 10_240 else f"{count / 1024:.0f} KiB" if count < 10_485_760 else f"{count >> 20} MiB"
