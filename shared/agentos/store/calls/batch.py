"""Durable writes of many items in one call: the same arguments, in one transaction, each under its own fence."""

from collections.abc import Sequence
from typing import Any

from agentos.store.run import Call, Together

FUNCTIONS = ("commit_checkpoint", "ledger_begin", "ledger_finish")
"""What may go together, in the order in which the engine locks what they write."""


def write_batch(calls: Sequence[Call[Any]]) -> Call[list[Any]]:
    """Make all of them, each of which can go `together`. Returns for each its row, or None: it was not plain, nothing
    was written for it, and the call itself, made alone, has the answer or the error.

    Raises whatever fails the whole: then nothing is written.
    """
    made = [(call.together, call.args, n) for n, call in enumerate(calls) if call.together is not None]
    made.sort(key=lambda one: one[1][0])  # what it locks after its lease: the task's head, or the key
    fences = sorted({together.fence for together, _, _ in made})
    item_ids, worker_ids, tokens = ([fence[column] for fence in fences] for column in range(3))

    def read(written: Sequence[Any]) -> list[Any]:
        replies: list[Any] = [None] * len(calls)
        for row in written:
            replies[row["n"]] = row
        return replies

    return Call(
        "SELECT * FROM agentos.write_batch($1::bigint[], $2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::text[])",
        (item_ids, worker_ids, tokens, *(_turned(made, function) for function in FUNCTIONS)),
        read,
        parts=tuple(together.function for together, _, _ in made),
    )


def _turned(made: Sequence[tuple[Together[Any], tuple[Any, ...], int]], function: str) -> list[list[str | None]]:
    """A row for each argument and one for the calls' numbers, a column for each call of the function."""
    calls = [(*args, n) for together, args, n in made if together.function == function]
    return [[_text(value) for value in row] for row in zip(*calls, strict=True)]


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)
