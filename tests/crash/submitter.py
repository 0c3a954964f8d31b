"""`python -m tests.crash.submitter DRIVER WHEN`: a row of its own and two tasks in one transaction, and a kill -9.

`python -m tests.crash.submitter forever COUNT`: so many coroutines submit, and say what they were told.
"""

import asyncio
import os
import signal
import sys
from typing import Any

import asyncpg
import psycopg

from agentos.core.app import App


def die() -> None:
    """Nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


async def asynchronous(driver: str, when: str) -> None:
    """Over asyncpg, or psycopg with asyncio."""
    dsn = os.environ["AGENTOS_DSN"]
    conn: Any = await (asyncpg.connect if driver == "asyncpg" else psycopg.AsyncConnection.connect)(dsn)
    if driver == "asyncpg":
        await conn.execute("BEGIN")
    await conn.execute("INSERT INTO orders VALUES (1)")
    app = App()
    await app.asubmit("quick", {"n": 1}, conn=conn)
    await app.asubmit_many("quick", [{"n": 2}], conn=conn)
    if when == "before":
        die()
    commit = asyncio.create_task(conn.execute("COMMIT"))
    if when == "during":
        await asyncio.sleep(0)  # it has been sent, and nobody has read the reply
        die()
    await commit
    die()


def blocking(when: str) -> None:
    """Over psycopg."""
    conn = psycopg.connect(os.environ["AGENTOS_DSN"])
    conn.execute("INSERT INTO orders VALUES (1)")
    app = App()
    app.submit("quick", {"n": 1}, conn=conn)
    app.submit_many("quick", [{"n": 2}], conn=conn)
    if when == "before":
        die()
    if when == "during":
        conn.pgconn.send_query(b"COMMIT")
        conn.pgconn.flush()
        die()
    conn.commit()
    die()


async def forever(coroutines: int) -> None:
    """Whoever started it kills it."""
    app = App()

    async def submit() -> None:
        while True:
            handle = await app.asubmit("quick", {"n": 1})
            os.write(1, f"told {handle.task_id}\n".encode())

    await asyncio.gather(*[submit() for _ in range(coroutines)])


if __name__ == "__main__":
    if sys.argv[1] == "forever":
        asyncio.run(forever(int(sys.argv[2])))
    elif sys.argv[1] == "blocking":
        blocking(sys.argv[2])
    else:
        asyncio.run(asynchronous(*sys.argv[1:]))
