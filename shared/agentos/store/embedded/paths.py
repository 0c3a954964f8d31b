"""Where everything of one embedded server lies."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

# A Unix socket path may have 107 bytes (103 on macOS); "/.s.PGSQL.5432" and the final NUL take 15 of them.
SOCKET_DIR_LIMIT = 88
SOCKET_NAME = ".s.PGSQL.5432"
PORT = 5432
ROLE = DATABASE = "agentos"


@dataclass(frozen=True, slots=True)
class Paths:
    """The layout of a data directory. `data_dir` is absolute and without symbolic links."""

    data_dir: Path

    @property
    def cluster(self) -> Path:
        """The database itself (PGDATA); only the server's user can enter it."""
        return self.data_dir / "postgres"

    @property
    def start_lock(self) -> Path:
        """Exclusive while the server is started or stopped, shared while somebody looks whether it runs."""
        return self.data_dir / "start.lock"

    @property
    def server_lock(self) -> Path:
        """Held by every process of the running server, which inherits it: free means that none of them lives."""
        return self.data_dir / "server.lock"

    @property
    def watchdog_lock(self) -> Path:
        return self.data_dir / "watchdog.lock"

    @property
    def users(self) -> Path:
        """One locked file for each living user process."""
        return self.data_dir / "users"

    @property
    def pin(self) -> Path:
        """Exists while the server is to run without users."""
        return self.data_dir / "pinned"

    @property
    def settings(self) -> Path:
        """Included by postgresql.conf; not inside `cluster`, where root must not write what another user can swap."""
        return self.data_dir / "agentos.conf"

    @property
    def start_log(self) -> Path:
        """What the server says before its own log in `cluster/log` begins."""
        return self.data_dir / "start.log"

    @property
    def watchdog_log(self) -> Path:
        return self.data_dir / "watchdog.log"

    @property
    def socket_dir(self) -> Path:
        """In the data directory if the path is short and plain enough for a socket and a DSN, else in /tmp.

        The same data directory always gives the same folder, so that a DSN outlives a restart of the server.
        """
        inside = self.data_dir / "run"
        if len(str(inside).encode()) <= SOCKET_DIR_LIMIT and re.fullmatch(r"[\w/.+@-]+", str(inside), re.ASCII):
            return inside
        return Path("/tmp") / f"agentos-{hashlib.sha256(str(self.data_dir).encode()).hexdigest()[:16]}"  # noqa: S108  # its owner is checked
