"""What must hold of every database whatever happened to its workers."""

from agentos.store.connect import connect
from agentos.store.schema import in_schema

MISPLACED = "SELECT * FROM agentos.misplaced_items"
MISCOUNTED = """
    SELECT t.task_id, t.open_items, agentos.count_open(t.task_id) AS counted FROM agentos.task_heads t
     WHERE t.open_items IS NOT NULL AND t.open_items <> agentos.count_open(t.task_id)
"""


def assert_sound(dsn: str) -> None:
    """Raises AssertionError: unless every item is in exactly one place and every head counts its open items."""
    with connect(dsn) as conn:
        if conn.execute(in_schema("SELECT to_regclass('agentos.misplaced_items')")).fetchone() == (None,):
            return
        misplaced = conn.execute(in_schema(MISPLACED)).fetchall()
        miscounted = conn.execute(in_schema(MISCOUNTED)).fetchall()
    if misplaced:
        raise AssertionError(f"items in no place or in two (item, task, places, found): {misplaced[:10]}")
    if miscounted:
        raise AssertionError(f"heads whose open_items are wrong (task, open_items, counted): {miscounted[:10]}")
