"""Running one command so that nothing of it outlives its work item.

The command and everything it starts are ended when it has ended, at the timeout, when the caller is cancelled, when it
passes a limit, and when the worker itself is killed with SIGKILL. On Linux that includes what made a session of its own
(`setsid`, a daemon, a double fork): the `keeper` is where orphans go. It may have limits, a sandbox, and sees of the
environment what is on a list.
"""

from agentos.core.shell.environment import ALLOWED, IDEMPOTENCY_KEY, clean_environment
from agentos.core.shell.limits import Limits
from agentos.core.shell.options import OPTION_NAMES, ShellOptions, shell_options
from agentos.core.shell.result import OUTPUT_LIMIT, CommandResult
from agentos.core.shell.run import arun_command, run_command

__all__ = [
    "ALLOWED",
    "IDEMPOTENCY_KEY",
    "OPTION_NAMES",
    "OUTPUT_LIMIT",
    "CommandResult",
    "Limits",
    "ShellOptions",
    "arun_command",
    "clean_environment",
    "run_command",
    "shell_options",
]
