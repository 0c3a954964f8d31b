"""What is seen while it runs: a live view on a terminal, lines elsewhere."""

import time
from collections import deque
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agentos.demo.watch import Look
from agentos.store.calls.timeline import WorkerRow

PLAIN_EVERY_S = 2.0
STORY_LINES = 12
STATES = {"alive": "green", "draining": "yellow", "late": "bold red", "dead": "bold red", "stopped": "dim"}


class View(Protocol):
    """Where the conductor shows what happens."""

    def say(self, text: str, style: str = "") -> None:
        """Something happened."""

    def show(self, look: Look) -> None:
        """How it stands now."""

    def close(self) -> None:
        """Leave the last state on the screen."""


def open_view(console: Console, *, plain: bool) -> View:
    """The view that fits the console."""
    return Lines(console) if plain or not console.is_terminal else Screen(console)


def clock(since: float) -> str:
    """Seconds since the beginning, aligned."""
    return f"{time.monotonic() - since:5.1f} s"


class Lines:
    """One line for each thing that happens, and every two seconds how far it is."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._last: tuple[float, str] = (0.0, "")

    def say(self, text: str, style: str = "") -> None:
        self._console.print(Text(f"{clock(self._began)}  {text}", style), soft_wrap=True)

    def show(self, look: Look) -> None:
        told = [f"{each.label} {each.state}, holds {len(look.held_by(each.worker_id))}" for each in look.crew]
        if look.loners:
            told.append(f"run alone {len(_held_alone(look))}")
        text = f"{look.done}/{len(look.items)} items done; {'; '.join(told)}"
        at, before = self._last
        if text != before and time.monotonic() - at >= PLAIN_EVERY_S:
            self._last = (time.monotonic(), text)
            self.say(text, "dim")

    def close(self) -> None:
        pass


class Screen:
    """Progress, who holds what, and the story so far."""

    def __init__(self, console: Console) -> None:
        self._began = time.monotonic()
        self._story: deque[Text] = deque(maxlen=STORY_LINES)
        self._look: Look | None = None
        self._live = Live(console=console, refresh_per_second=8, get_renderable=self._drawn)
        self._live.start()

    def say(self, text: str, style: str = "") -> None:
        self._story.append(Text(f"{clock(self._began)}  {text}", style, overflow="ellipsis", no_wrap=True))

    def show(self, look: Look) -> None:
        self._look = look

    def close(self) -> None:
        self._live.stop()

    def _drawn(self) -> RenderableType:
        story = Panel(Group(*self._story), title="what happened", title_align="left", border_style="dim")
        if self._look is None:
            return story
        return Group(self._progress(self._look), self._workers(self._look), story)

    def _progress(self, look: Look) -> RenderableType:
        line = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=max(len(look.items), 1), completed=look.done, width=40)
        line.add_row(Text("audit", "bold"), bar, f"{look.done}/{len(look.items)} items", clock(self._began))
        return line

    def _workers(self, look: Look) -> RenderableType:
        table = Table(box=None, padding=(0, 2), header_style="dim")
        for name, width in (("worker", 10), ("pid", 8), ("state", 12), ("beat", 10), ("leases", None)):
            table.add_column(name, no_wrap=True, min_width=width)
        for worker in look.crew:
            table.add_row(*self._cells(look, worker))
        if look.loners:
            held = _held_alone(look)
            table.add_row("run alone", "", f"{len(look.loners)} processes", "", f"{len(held)}  {', '.join(held)}")
        return table

    def _cells(self, look: Look, worker: WorkerRow) -> list[str | Text]:
        held = look.held_by(worker.worker_id)
        names = ", ".join(look.name_of(item.item_id) for item in held)
        style = STATES.get(worker.state, "")
        return [
            worker.label, str(worker.pid), Text(worker.state, style), f"{worker.beat_age_s:.1f} s ago",
            Text(f"{len(held)}  {names}", "bold red" if worker.state in ("late", "dead") else "", overflow="ellipsis"),
        ]  # fmt: skip


def _held_alone(look: Look) -> list[str]:
    """Items that were taken from a dead worker and run in a process of their own now."""
    return [look.name_of(item.item_id) for worker in look.loners for item in look.held_by(worker.worker_id)]
