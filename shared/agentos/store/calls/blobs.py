"""Parts of large values: read, collected; and what a task's records take."""

from collections.abc import Sequence
from dataclasses import dataclass

from agentos.store.codec import open_body
from agentos.store.run import Call

GRACE_S = 600.0
"""Seconds for which a part without a reference is kept: a task that names it again need not send it again."""


@dataclass(frozen=True, slots=True)
class Bytes:
    """How many records of a sort a task has, and the bytes of their content before the server compresses it."""

    what: str
    count: int
    bytes: int


def get_blobs(names: Sequence[str]) -> Call[dict[str, bytes]]:
    """The bodies of these parts, by their hashes; one that is gone is left out."""
    return Call(
        "SELECT * FROM agentos.get_blobs($1::text[])",
        (list(names),),
        lambda rows: {row["sha256"]: open_body(bytes(row["body"])) for row in rows},
    )


def collect_blobs(grace_s: float = GRACE_S, limit: int = 1000) -> Call[int]:
    """Delete parts that nothing refers to since `grace_s` seconds. Returns how many."""
    return Call(
        "SELECT agentos.collect_blobs($1::float8, $2::integer) AS n",
        (float(grace_s), limit),
        lambda rows: int(rows[0]["n"]),
    )


def collectable_blobs(grace_s: float, limit: int) -> Call[tuple[int, int]]:
    """How many parts `collect_blobs` would delete, `limit` looked at, and their stored bytes. Reads only."""
    return Call(
        "SELECT * FROM agentos.collectable_blobs($1::float8, $2::integer)",
        (float(grace_s), limit),
        lambda rows: (int(rows[0]["parts"]), int(rows[0]["bytes"])),
    )


def drop_blobs(task_id: str) -> Call[int]:
    """Take a task's references back. Returns how many."""
    return Call("SELECT agentos.drop_blobs($1::text) AS n", (task_id,), lambda rows: int(rows[0]["n"]))


def task_bytes(task_id: str) -> Call[tuple[Bytes, ...]]:
    """What a task's records take."""
    return Call(
        "SELECT * FROM agentos.task_bytes($1::text)", (task_id,), lambda rows: tuple(Bytes(**dict(row)) for row in rows)
    )
