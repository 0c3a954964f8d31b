"""A program that forks while a thread of its own is at work: the child has its own connections, and its own locks."""

import os
from typing import Any

from agentos.core import presence
from agentos.store import connect as connecting
from agentos.store.connect import Database
from agentos.store.run import Call
from agentos.store.settings import load_settings
from agentos.testing.fork import in_child

ONE: Call[int] = Call("SELECT 1 AS one", (), lambda rows: int(rows[0]["one"]))


def test_a_child_does_not_wait_for_locks_of_its_parents_threads(database_dsn: str) -> None:
    def work(tell: Any) -> None:
        database = Database.default(load_settings(dsn=database_dsn))
        presence.guest(database)
        tell(str(database.run(ONE)))
        presence.forget_guests()

    Database.default(load_settings(dsn=database_dsn)).run(ONE)
    with connecting._ready_lock, Database._lock, presence._guests_lock:
        ended = in_child(work, timeout_s=60)
    assert (ended.code, ended.told) == (0, ("1",))
    assert ended.pid != os.getpid()
