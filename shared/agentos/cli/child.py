"""`python -m agentos.cli.child PARENT COMMAND…`: becomes COMMAND, and is told to stop when PARENT dies.

A terminal that is closed, or a kill -9 of `agentos up`, would otherwise leave its processes running without anybody
seeing them. Linux only; elsewhere it just becomes COMMAND.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie, then exec: the tie survives it."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the tie
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606  no shell, and the command is our own


if __name__ == "__main__":
    main()
