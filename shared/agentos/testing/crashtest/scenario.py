"""One primitive, as a small agent with effects that can be counted from outside."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentos.core.app import App, TaskHandle


@dataclass(frozen=True, slots=True)
class Effects:
    """The world: a file that a `kill -9` does not take back."""

    file: Path

    def do(self, name: str) -> str:
        """Do it: one more line, written at once. Returns its name."""
        with self.file.open("a") as log:
            log.write(f"{name}\n")
            log.flush()
            os.fsync(log.fileno())
        return name

    def counted(self) -> Counter[str]:
        """How often each was done."""
        return Counter(self.file.read_text().split() if self.file.exists() else [])


Act = Callable[[App, TaskHandle, Effects], None]
"""What somebody outside does (answers, signals ...). Done again when it died; doing it twice must not matter."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """`app(effects)` makes the agent, its kind is `kind` or `name`; `acts` happen one by one, whenever it can go
    no further.

    `worker_calls`: the calls of the engine that its worker makes; `caller_calls`: those of `submit` and of the acts.
    `once`: effects that must be done exactly once wherever it dies. `repeats`: effects that may be done again when it
    dies at these points, because nothing can know that they were done; the primitive says so.
    `first`: where a worker dies before the one that is watched. `status`: how the task must end.
    """

    name: str
    about: str
    app: Callable[[Effects], App]
    worker_calls: tuple[str, ...]
    caller_calls: tuple[str, ...] = ()
    acts: tuple[Act, ...] = ()
    payload: dict[str, Any] = field(default_factory=dict)
    once: tuple[str, ...] = ()
    repeats: dict[str, frozenset[str]] = field(default_factory=dict)
    status: str = "completed"
    result: Any = None
    submit: dict[str, Any] = field(default_factory=dict)
    first: str | None = None
    kind: str | None = None

    @property
    def calls(self) -> tuple[str, ...]:
        """All of its calls."""
        return (*self.caller_calls, *self.worker_calls)
