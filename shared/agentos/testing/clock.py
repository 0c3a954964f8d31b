"""The clock of one database, moved for everybody: what expires, is due or wakes up can be tested without waiting."""

from dataclasses import dataclass, field

from psycopg import sql

from agentos.store.connect import connect
from agentos.store.schema import schema


@dataclass(frozen=True, slots=True)
class Clock:
    """Moves the clock of one database for *everybody*: open connections, pools and other processes.

    The engine reads the time in one function, and that is replaced in the test's database, which takes the owner of the
    schema. A statement already running keeps the former clock.
    """

    dsn: str
    offset: list[float] = field(default_factory=lambda: [0.0])

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`; negative moves back."""
        self.offset[0] += seconds
        with connect(self.dsn) as conn:
            conn.execute(
                sql.SQL(
                    "CREATE OR REPLACE FUNCTION {}.clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$"
                    " SELECT clock_timestamp() + make_interval(secs => {}) $$"
                ).format(sql.Identifier(schema()), sql.Literal(self.offset[0]))
            )
