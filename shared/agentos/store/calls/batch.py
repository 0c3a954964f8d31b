"""Durable writes of many items in one call: the same arguments, in one transaction, each under its own fence."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from agentos.store.run import Call

COLUMNS = {
    "commit_checkpoint": (0, 4, 5, 6, 7, 8, 9, 10, 11),
    "ledger_begin": (0, 1, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15),
    "ledger_finish": (0, 1, 5, 6, 7),
}
"""What may go together, in the order in which the engine locks what they write, and which of its arguments a batch
names column by column: all but the fence."""

Fence = tuple[int, int, Any]
Made = tuple[tuple[Any, ...], Fence, int]


class Written(NamedTuple):
    """That a call was written, when, and of a checkpoint the number."""

    sequence_number: int | None
    at: datetime


def write_batch(calls: Sequence[Call[Any]]) -> Call[list[Written | None]]:
    """Make all of them, each of which can go `together`. Returns for each what was written, or None: it was not plain,
    nothing was written for it, and the call itself, made alone, has the answer or the error.

    Raises whatever fails the whole: then nothing is written.
    """
    sorts: dict[str, list[Made]] = {function: [] for function in COLUMNS}
    for n, call in enumerate(calls):
        if (together := call.together) is not None:
            sorts[together.function].append((call.args, together.fence, n))
    for made in sorts.values():
        made.sort(key=_fence)
    order = [one for made in sorts.values() for one in made]

    def read(rows: Sequence[Any]) -> list[Written | None]:
        replies: list[Written | None] = [None] * len(calls)
        for row in rows:
            places, numbers, at = row["places"] or (), row["sequence_numbers"], row["at"]
            for i, place in enumerate(places):
                replies[order[place - 1][2]] = Written(numbers[i] if numbers else None, at)
        return replies

    args: list[Any] = [list(column) for column in zip(*(fence for _, fence, _ in order), strict=True)]
    for function, made in sorts.items():
        args += [[one[0][name] for one in made] if made else None for name in COLUMNS[function]]
    return Call(
        "SELECT * FROM agentos.write_batch($1::bigint[], $2::bigint[], $3::uuid[],"
        " $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::integer[], $10::text[], $11::text[],"
        " $12::uuid[],"
        " $13::text[], $14::text[], $15::text[], $16::text[], $17::integer[], $18::integer[], $19::text[], $20::text[],"
        " $21::text[], $22::float8[], $23::uuid[], $24::integer[],"
        " $25::text[], $26::uuid[], $27::text[], $28::integer[], $29::text[])",
        tuple(args),
        read,
        parts=tuple(call.together.function for call in calls if call.together is not None),
    )


def _fence(one: Made) -> Fence:
    return one[1]
