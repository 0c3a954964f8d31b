"""A command behind walls: bubblewrap, which makes namespaces of its own for it.

Inside: the file system read-only, a private and empty /tmp and /run, the user's home and the folders of agentos empty,
the workspace writable, no other process to be seen, no privilege, and no network unless asked for. So the worker's
environment, the database's sockets and files, and keys under the home are not there to be read.
"""

import functools
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from agentos.store.errors import InvalidArguments, SandboxUnavailable

SandboxName = Literal["none", "bwrap"]
PROBE_TIMEOUT_S = 20.0

_WALLS = (
    "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try", "--die-with-parent",
    "--new-session", "--cap-drop", "ALL", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp",  # noqa: S108  a new one, inside
    "--tmpfs", "/run",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sandbox:
    """`workspace`: the folder that the command may write to, and where it begins. `network`: share the host's.
    `readable`: folders under what is hidden that it may read all the same. `hidden`: folders that are empty inside.
    """

    workspace: str
    network: bool = False
    readable: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()

    def argv(self, argv: Sequence[str]) -> list[str]:
        """`argv` as run inside. Raises SandboxUnavailable: if this host cannot; nothing was run."""
        program = bubblewrap(network=self.network)
        inside = [program, *_WALLS, *_network(self.network)]
        for folder in _folders((_home(), *self.hidden)):
            inside += ["--tmpfs", folder]
        for folder in _folders(self.readable):
            inside += ["--ro-bind", folder, folder]
        workspace = os.path.realpath(self.workspace)
        return [*inside, "--bind", workspace, workspace, "--chdir", workspace, "--", *argv]


def _network(shared: bool) -> tuple[str, ...]:
    return () if shared else ("--unshare-net",)


def _home() -> str:
    return str(Path.home())


def _folders(wanted: Sequence[str]) -> list[str]:
    """Those that are there, the outer before the inner: what is mounted later hides what was there before."""
    found = {os.path.realpath(each) for each in wanted if os.path.isdir(each)}
    return sorted(found - {"/"})


def check_sandbox(name: object) -> SandboxName:
    """Raises InvalidArguments: if there is no such sandbox."""
    for known in get_args(SandboxName):
        if name == known:
            return cast("SandboxName", known)
    raise InvalidArguments(f"there is no sandbox {name!r}", hint="use 'bwrap', or 'none'")


def bubblewrap(*, network: bool = False) -> str:
    """The path of bubblewrap, which was tried once with the walls that a command gets.

    Raises SandboxUnavailable: if it is missing, or the kernel refuses what it needs.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise SandboxUnavailable(
            "a sandbox was asked for, and bubblewrap (bwrap) is not on the PATH of this worker",
            hint="install it (Debian, Ubuntu, Fedora: the package bubblewrap), or ask for sandbox='none'",
        )
    refusal = _refusal(program, network)
    if refusal is not None:
        raise SandboxUnavailable(
            f"a sandbox was asked for, and {program} cannot make one on this host: {refusal}",
            hint="let this user make namespaces (sysctl kernel.unprivileged_userns_clone=1, or "
            "kernel.apparmor_restrict_unprivileged_userns=0; in a container: a seccomp profile that allows it), "
            "or ask for sandbox='none'",
        )
    return program


@functools.cache
def _refusal(program: str, network: bool) -> str | None:
    """Why it cannot, None: it can. Asked once for each process: neither changes while a worker runs."""
    try:
        tried = subprocess.run(
            [program, *_WALLS, *_network(network), "--", "/bin/sh", "-c", "exit 0"],
            capture_output=True, timeout=PROBE_TIMEOUT_S, stdin=subprocess.DEVNULL, env={}, check=False, cwd="/",
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = tried.stderr.decode(errors="replace").strip().splitlines()
    return None if tried.returncode == 0 else (said[-1] if said else f"it ended with {tried.returncode}")
