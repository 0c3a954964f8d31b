"""What a database may answer that is no reason for a daemon to give up: away, read-only, out of space, a lock that was
held too long. Whoever catches it asks again later.
"""

import asyncpg

from agentos.store.errors import DatabaseError

TROUBLE = (DatabaseError, asyncpg.PostgresError)


def reason(exc: BaseException) -> str:
    """One line of it, for the log."""
    return (str(exc) or type(exc).__name__).splitlines()[0]
