"""What the conductor tells the report: who was who, and what was done to whom. One file beside the effects log."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agentos.demo import artifacts

NAME = "conductor.json"


@dataclass(frozen=True, slots=True)
class Kill:
    """The worker that was killed, and the item whose artifact was changed. `at`: seconds since 1970."""

    worker: str
    pid: int
    at: float
    item: str
    artifact: str


@dataclass(frozen=True, slots=True)
class Notes:
    """`workers`: pid and name of the processes that the conductor started."""

    workers: dict[int, str] = field(default_factory=dict)
    kill: Kill | None = None


def write_notes(folder: Path, notes: Notes) -> None:
    """Replace the notes."""
    artifacts.write(folder / NAME, json.dumps(asdict(notes), indent=1))


def read_notes(folder: Path) -> Notes:
    """The notes so far; empty ones when the app is run without a conductor."""
    try:
        data: dict[str, Any] = json.loads((folder / NAME).read_text("utf-8"))
    except FileNotFoundError:
        return Notes()
    kill = Kill(**data["kill"]) if data["kill"] else None
    return Notes({int(pid): name for pid, name in data["workers"].items()}, kill)
