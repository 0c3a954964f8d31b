"""Running one command so that nothing of it outlives its work item.

The command and everything it starts form one process group of its own session. The group is killed when the command
has ended, at the timeout, when the caller is cancelled, and, by a watcher beside the worker, when the worker itself is
killed with SIGKILL. Only what makes a session of its own (`setsid`, a daemon) leaves the group and is not followed.
"""

from agentos.core.shell.environment import IDEMPOTENCY_KEY, clean_environment
from agentos.core.shell.result import OUTPUT_LIMIT, CommandResult
from agentos.core.shell.run import arun_command, run_command

__all__ = [
    "IDEMPOTENCY_KEY",
    "OUTPUT_LIMIT",
    "CommandResult",
    "arun_command",
    "clean_environment",
    "run_command",
]
