"""A submit that may be said again: its idempotency key and its task are written in one transaction."""

import hashlib
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import psycopg

from agentos.store.calls import tasks
from agentos.store.connect import Database
from agentos.store.errors import InvalidInput
from agentos.store.run import Call, raise_mapped, run_call

KEY_LIMIT = 255
WINDOW_MOST_S = 366 * 86_400.0


def checked_key(key: str) -> str:
    """Raises InvalidInput: if it is not a text of 1 to 255 characters."""
    if not 1 <= len(str(key)) <= KEY_LIMIT or key != str(key):
        raise InvalidInput(
            f"the idempotency_key {key!r:.80} is not a text of 1 to {KEY_LIMIT} characters",
            hint="use what identifies the request where it comes from, such as an order number",
        )
    return key


def reservation(key: str, task_id: str, kind: str, payload: str) -> Call[str | None]:
    """The call that reserves the key. Raises InvalidInput: if it is no such text."""
    return tasks.submit_key(checked_key(key), task_id, kind, hashlib.sha256(payload.encode()).hexdigest())


def unique_reservation(key: str | None, task_id: str, kind: str, payload: str, window_s: float) -> Call[str | None]:
    """The call that reserves a key for a time; without one, kind and payload are it.

    Raises InvalidInput: if the key is no such text, or the time not above 0 and at most a year.
    """
    if not 0 < window_s <= WINDOW_MOST_S:
        raise InvalidInput(f"unique_for_s is {window_s!r}", hint="pass seconds, above 0, at most a year")
    digest = hashlib.sha256(payload.encode()).hexdigest()
    told = digest if key is None else hashlib.sha256(checked_key(key).encode()).hexdigest()
    name = hashlib.sha256(kind.encode()).hexdigest()
    return tasks.submit_unique(f"@unique:{name}:{told}", task_id, kind, digest, window_s)


def submit_keyed(
    db: Database, conn: psycopg.Connection[Any] | None, submit: Call[Any], reserve: Call[str | None]
) -> str | None:
    """Submit under a key. None: it was new; else the id of the task that was submitted under it before.

    In a transaction of the caller's (`conn`) the key is his to commit, with the task.
    Raises IdempotencyConflict: if that one had another kind or payload. TaskExists.
    """
    try:
        with nullcontext(conn) if conn is not None else db.connection() as target, _transaction(target):
            former = run_call(target, reserve)
            if former is None:
                run_call(target, submit)
            return former
    except psycopg.Error as exc:
        raise_mapped(exc)


def _transaction(conn: psycopg.Connection[Any]) -> AbstractContextManager[Any]:
    """One transaction for both calls. Outside autocommit the connection's first statement begins one, and that is the
    caller's to commit.
    """
    return conn.transaction() if conn.autocommit else nullcontext()
