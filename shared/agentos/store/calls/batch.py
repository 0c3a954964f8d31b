"""Durable writes of many items in one call: the same arguments, in one transaction, each under its own fence."""

from collections.abc import Mapping, Sequence
from typing import Any

from agentos.store.run import Call

COLUMNS = {
    "commit_checkpoint": (0, 4, 5, 6, 7, 8, 9, 10, 11),
    "ledger_begin": (0, 1, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15),
    "ledger_finish": (0, 1, 5, 6, 7),
}
"""What may go together, in the order in which the engine locks what they write, and which of its arguments a batch
names: all but the fence, which is named by its place."""

Fence = tuple[int, int, Any]
Made = tuple[tuple[Any, ...], Fence, int]


def write_batch(calls: Sequence[Call[Any]]) -> Call[list[Any]]:
    """Make all of them, each of which can go `together`. Returns for each its row, or None: it was not plain, nothing
    was written for it, and the call itself, made alone, has the answer or the error.

    Raises whatever fails the whole: then nothing is written.
    """
    made: dict[str, list[Made]] = {function: [] for function in COLUMNS}
    for n, call in enumerate(calls):
        if (together := call.together) is not None:
            made[together.function].append((call.args, together.fence, n))
    fences = sorted({fence for some in made.values() for _, fence, _ in some})
    places = {fence: place for place, fence in enumerate(fences, 1)}

    def read(written: Sequence[Any]) -> list[Any]:
        replies: list[Any] = [None] * len(calls)
        for row in written:
            replies[row["n"]] = row
        return replies

    args = [list(column) for column in zip(*fences, strict=True)]
    for function, some in made.items():
        args += _turned(some, COLUMNS[function], places)
    return Call(
        "SELECT * FROM agentos.write_batch($1::bigint[], $2::bigint[], $3::uuid[],"
        " $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::integer[], $10::text[], $11::text[],"
        " $12::uuid[], $13::integer[], $14::integer[],"
        " $15::text[], $16::text[], $17::text[], $18::text[], $19::integer[], $20::integer[], $21::text[], $22::text[],"
        " $23::text[], $24::float8[], $25::uuid[], $26::integer[], $27::integer[], $28::integer[],"
        " $29::text[], $30::uuid[], $31::text[], $32::integer[], $33::text[], $34::integer[], $35::integer[])",
        tuple(args),
        read,
        parts=tuple(call.together.function for call in calls if call.together is not None),
    )


def _turned(made: list[Made], names: Sequence[int], places: Mapping[Fence, int]) -> list[Any]:
    """A list for each column of one function's calls, with the places of their fences and their numbers as the last."""
    if not made:
        return [None] * (len(names) + 2)
    made.sort(key=_locked)
    rows = [args for args, _, _ in made]
    columns: list[Any] = [[args[name] for args in rows] for name in names]
    return [*columns, [places[fence] for _, fence, _ in made], [n for _, _, n in made]]


def _locked(one: Made) -> str:
    """What it locks after its lease: the task's head, or the key."""
    key: str = one[0][0]
    return key
