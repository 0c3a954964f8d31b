"""Durable writes of many items in one call: the same arguments, in one transaction, each under its own fence."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from agentos.store.run import Call

COLUMNS = {
    "commit_checkpoint": (0, 4, 5, 6, 7, 8, 9, 10, 11),
    "ledger_begin": (0, 1, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15),
    "ledger_finish": (0, 1, 5, 6, 7),
}
"""What may go together, in the order in which the engine locks what they write, and which of its arguments a batch
names column by column: all but the fence."""

LONG = {
    "commit_checkpoint": (5, 7),
    "ledger_begin": (9, 11),
    "ledger_finish": (5, 7),
}
"""Those that may be long: sent as arrays. The server reads an array that is written as text letter by letter."""

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

    args: list[Any] = [_array_text(column) for column in zip(*(fence for _, fence, _ in order), strict=True)]
    for function, made in sorts.items():
        for name in COLUMNS[function]:
            column = [one[0][name] for one in made]
            args.append(None if not made else column if name in LONG[function] else _array_text(column))
    return Call(
        "SELECT * FROM agentos.write_batch($1::text::bigint[], $2::text::bigint[], $3::text::uuid[],"
        " $4::text::text[], $5::text::text[], $6::text[], $7::text::text[], $8::text[], $9::text::integer[],"
        " $10::text::text[], $11::text::text[], $12::text::uuid[],"
        " $13::text::text[], $14::text::text[], $15::text::text[], $16::text::text[], $17::text::integer[],"
        " $18::text::integer[], $19::text[], $20::text::text[], $21::text[], $22::text::float8[], $23::text::uuid[],"
        " $24::text::integer[],"
        " $25::text::text[], $26::text::uuid[], $27::text[], $28::text::integer[], $29::text[])",
        tuple(args),
        read,
        parts=tuple(call.together.function for call in calls if call.together is not None),
    )


def _array_text(column: Sequence[Any]) -> str:
    """A column of texts, numbers or UUIDs as Postgres writes an array. asyncpg asks of each element of a list whether
    it is a list itself, which takes longer than writing it.
    """
    first = column[0]
    if isinstance(first, str) and None not in column:
        joined = '","'.join(column)
        if "\\" not in joined and joined.count('"') == 2 * len(column) - 2:
            return f'{{"{joined}"}}'
    elif isinstance(first, UUID):
        return f"{{{','.join([each.hex for each in column])}}}"
    elif isinstance(first, int) and None not in column:
        return f"{{{','.join(map(str, column))}}}"
    return f"{{{','.join(map(_element, column))}}}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if not isinstance(value, str):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _fence(one: Made) -> Fence:
    return one[1]
