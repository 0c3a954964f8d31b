"""A database whose replies get lost: the call happens, and the caller is told that nobody knows."""

from dataclasses import dataclass, field
from typing import Any, TypeVar

from agentos.store.connect import Database
from agentos.store.errors import DatabaseUnavailable
from agentos.store.run import Call

T = TypeVar("T")


@dataclass(slots=True)
class Lossy:
    """Loses the first reply of each SQL function named in `lose`, or all. `before`: the call itself, not its reply."""

    db: Database
    lose: set[str]
    before: bool = False
    all: bool = False
    lost: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.db, name)  # its connections and its DSN are the real ones

    def run(self, call: Call[T]) -> T:
        name = next((each for each in self.lose if f"agentos.{each}(" in call.sql), None)
        if name is None:
            return self.db.run(call)
        if not self.all:
            self.lose.discard(name)
        self.lost.append(name)
        if not self.before:
            self.db.run(call)
        raise DatabaseUnavailable("the reply was lost")
