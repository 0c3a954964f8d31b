"""How far `agentos crashtest` is, on stderr: a bar on a terminal, else a line now and then."""

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agentos.cli.output import duration, err
from agentos.testing.crashtest import Cell

LINE_S = 10.0
"""Between two lines, where no terminal is."""


class Watch:
    """Told of each cell that begins or ends. One that fails is said at once."""

    def __init__(self, total: int, jobs: int, *, line_s: float = LINE_S) -> None:
        self._total, self._jobs, self._line_s = total, jobs, line_s
        self._done = self._failed = 0
        self._started = self._said = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
        self._shown = self._bar.add_task("", total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        if not err.is_terminal:
            err.print(f"crashtest: {self._total} cells, {min(self._jobs, self._total)} at a time")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        self._bar.stop()

    def began(self, name: str) -> None:
        """The newest is the one that is shown."""
        self._bar.update(self._shown, description=name)

    def ended(self, cell: Cell) -> None:
        """One more is known."""
        self._done += 1
        if not cell.holds:
            self._failed += 1
            err.print(f"FAILS {cell.scenario} {cell.when}:{cell.call}: {cell.trouble}", style="red")
        self._bar.advance(self._shown)
        now = time.monotonic()
        if not err.is_terminal and (self._done in (1, self._total) or now - self._said >= self._line_s):
            self._said = now
            took = duration(now - self._started)
            err.print(f"crashtest: {self._done} of {self._total} cells, {self._failed} failed, {took}")
