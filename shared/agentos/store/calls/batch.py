"""Durable writes of many items in one call: the same arguments, in one transaction, each under its own fence."""

from collections.abc import Sequence
from typing import Any

from agentos.store.run import Call, Together

FUNCTIONS = ("commit_checkpoint", "ledger_begin", "ledger_finish")
"""What may go together, in the order in which the engine locks what they write."""
ARGUMENTS = 16
"""Places for the arguments of one call; the function's name and the number of its fence follow."""


def write_batch(calls: Sequence[Call[Any]]) -> Call[list[Any]]:
    """Make all of them, each of which can go `together`. Returns for each its row, or None: it was not plain, nothing
    was written for it, and the call itself, made alone, has the answer or the error.

    Raises whatever fails the whole: then nothing is written.
    """
    made = [(call.together, call) for call in calls if call.together is not None]
    fences = sorted({together.fence for together, _ in made})
    number = {fence: n for n, fence in enumerate(fences, 1)}
    order = sorted(range(len(made)), key=lambda n: _place(*made[n]))
    rows = [_row(*made[n], number[made[n][0].fence]) for n in order]

    def read(written: Sequence[Any]) -> list[Any]:
        replies: list[Any] = [None] * len(made)
        for row in written:
            replies[order[row["n"] - 1]] = row
        return replies

    item_ids, worker_ids, tokens = ([fence[column] for fence in fences] for column in range(3))
    tasks = {call.args[0] for together, call in made if together.function == FUNCTIONS[0]}
    return Call(
        "SELECT * FROM agentos.write_batch($1::bigint[], $2::bigint[], $3::uuid[], $4::text[], $5::text[])",
        (item_ids, worker_ids, tokens, list(tasks), rows),
        read,
        parts=tuple(together.function for together, _ in made),
    )


def _place(together: Together[Any], call: Call[Any]) -> tuple[int, str]:
    """Every function's first argument is what it locks after its lease: the task's head, or the key."""
    return FUNCTIONS.index(together.function), call.args[0]


def _row(together: Together[Any], call: Call[Any], fence: int) -> list[str | None]:
    row = [value if value is None or isinstance(value, str) else str(value) for value in call.args]
    return [*row, *[None] * (ARGUMENTS - len(row)), together.function, str(fence)]
