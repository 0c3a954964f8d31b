"""Making a task of another one's checkpoint: what goes along, and the transition."""

from dataclasses import dataclass

from agentos.store.calls.rewind import RecordedEffect
from agentos.store.canonical import loads
from agentos.store.run import Call


@dataclass(frozen=True, slots=True)
class ForkedCall:
    """A recorded call of the task. `after` the checkpoint, or before it. `living`: the child task that it made has not
    ended.
    """

    call: RecordedEffect
    after: bool
    living: bool


def fork_calls(task_id: str, seq: int) -> Call[tuple[ForkedCall, ...]]:
    """Every recorded call of the task, in order. Writes nothing.

    Raises UnknownTask, TaskPurged, UnknownCheckpoint: if there is none with the number `seq`, or it is superseded.
    """

    def read(rows: object) -> tuple[ForkedCall, ...]:
        found = []
        for each in rows:  # type: ignore[attr-defined]
            row = dict(each)
            after, living = row.pop("after"), row.pop("living")
            found.append(ForkedCall(RecordedEffect(**{**row, "arguments": loads(row["arguments"])}), after, living))
        return tuple(found)

    return Call("SELECT * FROM agentos.fork_calls($1::text, $2::bigint)", (task_id, seq), read)


def require_forkable(task_id: str, seq: int) -> Call[None]:
    """Raises TaskOpen: if a child task of before the checkpoint has not ended. ForkRefused: if a record cannot go."""
    return Call("SELECT agentos.require_forkable($1::text, $2::bigint)", (task_id, seq), lambda _: None)


def fork_task(task_id: str, seq: int, fork_id: str, choices: str, *, outputs: bool, by: str) -> Call[tuple[int, ...]]:
    """Make the task `fork_id`, which begins at the checkpoint `seq` of `task_id`, in one commit. `choices`: as in
    `rewind_task`. `outputs`: what models answered the one answers the other, too. Returns the items that are open.

    Raises TaskExists, UnknownTask, TaskPurged, UnknownCheckpoint, TaskOpen, ForkRefused.
    """
    return Call(
        "SELECT agentos.fork_task($1::text, $2::bigint, $3::text, $4::text, $5::boolean, $6::text) AS items",
        (task_id, seq, fork_id, choices, outputs, by),
        lambda rows: tuple(rows[0]["items"]),
    )


def outputs_of(task_id: str) -> Call[str | None]:
    """Of a fork: the task whose model outputs answer it, too."""
    return Call(
        "SELECT agentos.outputs_of($1::text) AS task_id", (task_id,), lambda rows: rows[0]["task_id"] if rows else None
    )
