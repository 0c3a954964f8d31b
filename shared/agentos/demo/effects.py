"""The effects log: a file outside the database to which the demo's tools append one line for each effect.

It only takes down what happens. Nothing in it refuses a second line for the same effect, so that it can tell on us.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agentos.core.flows.tools import ToolCall

NAME = "effects.jsonl"


@dataclass(frozen=True, slots=True)
class Effect:
    """One line. `effect` says what was done, in words that do not depend on any key; times in seconds since 1970."""

    idempotency_key: str
    tool: str
    item: str
    effect: str
    execution: int
    repair: bool
    pid: int
    began: float
    at: float
    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tally:
    """What the log says. `lost` and `duplicated` name effects."""

    effects: int
    repaired: int
    lost: tuple[str, ...]
    duplicated: tuple[str, ...]


def append(folder: str, call: ToolCall, tool: str, arguments: dict[str, Any], began: float, result: Any) -> None:
    """Take down that it happened: one write, then fsync, so that a reader sees the whole line or none."""
    line = Effect(
        call.idempotency_key, tool, arguments["item"], arguments["command"], call.execution, call.repair, os.getpid(),
        began, time.time(), result,
    )  # fmt: skip
    data = json.dumps(asdict(line)).encode() + b"\n"
    log = os.open(Path(folder) / NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        if os.write(log, data) != len(data):
            raise OSError(f"{NAME} took only a part of a line: the disk is full")
        os.fsync(log)
    finally:
        os.close(log)


def read(folder: Path) -> tuple[Effect, ...]:
    """Every whole line, in the order of the log; none if nothing was done yet."""
    try:
        text = (folder / NAME).read_text("utf-8")
    except FileNotFoundError:
        return ()
    return tuple(Effect(**json.loads(line)) for line in text.splitlines(keepends=True) if line.endswith("\n"))


def recorded(folder: Path, idempotency_key: str) -> Effect | None:
    """The newest line with this key: what a probe asks for."""
    return next((each for each in reversed(read(folder)) if each.idempotency_key == idempotency_key), None)


def tally(effects: Iterable[Effect], *, expected: Collection[str], recorded_keys: Collection[str]) -> Tally:
    """Count by idempotency key, and by what was done, so that one effect under two keys is found too.

    `expected`: what must have been done. `recorded_keys`: the calls that the database says were finished. What is in
    either and not in the log is lost. Lines of a repair are no duplicates: they say so themselves.
    """
    seen = list(effects)
    first = [each for each in seen if not each.repair]
    keys, done = Counter(e.idempotency_key for e in first), Counter(e.effect for e in first)
    twice = {e.effect for e in first if keys[e.idempotency_key] > 1 or done[e.effect] > 1}
    lost = [effect for effect in expected if effect not in done] + [f"call {k}" for k in recorded_keys if k not in keys]
    return Tally(len(first), len(seen) - len(first), tuple(sorted(lost)), tuple(sorted(twice)))
