"""`agentos-worker` as PID 1 of a pid namespace of its own, as in a container."""

import os
import subprocess
import sys

UNSHARE = ("unshare", *(() if os.geteuid() == 0 else ("--map-root-user",)), "--pid", "--fork", "--mount-proc")


def refused() -> str | None:
    """Why this machine lets nobody have a pid namespace; None: it does."""
    try:
        tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "no unshare on this machine"
    return tried.stderr.strip() or "unshare fails" if tried.returncode else None


if __name__ == "__main__":
    os.execvp("unshare", [*UNSHARE, "--kill-child", sys.executable, "-m", "agentos.worker", *sys.argv[1:]])  # noqa: S606
