"""Taking a task's content away."""

from agentos.store.run import Call


def purge_task(task_id: str, by: str) -> Call[int]:
    """Take away what a task and its child tasks were about; what happened stays. Returns how many tasks.

    Raises UnknownTask. TaskOpen: if one of them, or its parent, has not ended.
    """
    return Call("SELECT agentos.purge_task($1::text, $2::text) AS n", (task_id, by), lambda rows: int(rows[0]["n"]))
