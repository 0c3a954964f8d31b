"""What is known about an embedded server at one moment."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class EmbeddedStatus:
    """`users` are the pids of the living user processes, `size` the bytes of the database on disk.

    `pid`, `dsn` are None unless it runs; `version` is that of the Postgres binaries, None if there are none yet.
    """

    running: bool
    pid: int | None
    dsn: str | None
    data_dir: Path
    version: str | None
    users: tuple[int, ...]
    size: int
    pinned: bool
