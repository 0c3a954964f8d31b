"""The system user that runs the server: this one, or an unprivileged one when this one is root."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from agentos.store.embedded.failures import ELSEWHERE, failed

if sys.platform != "win32":
    import pwd

CANDIDATES = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Owner:
    """`switch` is set when processes have to be started as this user, because we are root."""

    uid: int
    gid: int
    switch: bool

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        stdin: str | None = None,
        output: IO[bytes] | None = None,
        keep: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `argv` as this user in / with a clean environment plus `env`, passing the descriptors `keep`.

        stdout and stderr go to `output`, else they are captured together.
        """
        return subprocess.run(
            argv,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=output or subprocess.PIPE,
            stderr=output or subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC", **(env or {})},
            pass_fds=keep,
            start_new_session=True,  # Ctrl-C on the terminal is not for the server
            user=self.uid if self.switch else None,
            group=self.gid if self.switch else None,
            extra_groups=[] if self.switch else None,
        )

    def can_enter(self, folder: Path) -> bool:
        """Whether this user gets into `folder`, through all of its parents."""
        return not self.switch or self.run(["/bin/sh", "-c", 'cd -- "$1"', "sh", folder]).returncode == 0

    def give(self, folder: Path) -> None:
        """Make `folder`, which we have just made, this user's alone."""
        folder.chmod(0o700)
        if self.switch:
            os.chown(folder, self.uid, self.gid)


def owner_of(cluster: Path) -> Owner:
    """Who runs the server whose data are, or will be, in `cluster`.

    Raises EmbeddedFailed: if we are root and there is no unprivileged user to run it.
    """
    if os.geteuid() != 0:
        return Owner(os.geteuid(), os.getegid(), switch=False)
    if cluster.exists() and (stat := cluster.stat()).st_uid != 0:
        return Owner(stat.st_uid, stat.st_gid, switch=True)
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Owner(entry.pw_uid, entry.pw_gid, switch=True)
    raise failed(
        "Postgres refuses to run as root, and this system has neither a user postgres nor a user nobody",
        hint=f"run agentos as another user, create the user postgres, or {ELSEWHERE}",
    )
