"""How a command ends: the exit codes, and what is printed of an error."""

import json

from rich.text import Text

from agentos.cli.output import err
from agentos.store.errors import (
    AgentOSError,
    DatabaseError,
    ForkRefused,
    IdempotencyConflict,
    InvalidDependency,
    InvalidInput,
    NotRetryable,
    SeveralQuestions,
    StaleAnswer,
    TaskExists,
    TaskFinished,
    TaskHeld,
    TaskOpen,
    TaskPurged,
    TaskRetired,
    TaskTimeout,
    UnknownCheckpoint,
    UnknownCron,
    UnknownOption,
    UnknownTask,
    UnknownWorker,
    UnknownWorkItem,
)

OK, FAILED, USAGE, DATABASE, TIMEOUT, NOT_FOUND = range(6)
INTERRUPTED = 130

_CODES: tuple[tuple[type[AgentOSError] | tuple[type[AgentOSError], ...], int], ...] = (
    (DatabaseError, DATABASE),
    ((UnknownTask, UnknownWorkItem, UnknownWorker, UnknownCheckpoint, UnknownCron), NOT_FOUND),
    (TaskTimeout, TIMEOUT),
    (
        (
            InvalidInput,
            IdempotencyConflict,
            TaskExists,
            TaskFinished,
            TaskHeld,
            NotRetryable,
            InvalidDependency,
            SeveralQuestions,
            StaleAnswer,
            UnknownOption,
            TaskOpen,
            TaskPurged,
            ForkRefused,
        ),
        USAGE,
    ),
)


def exit_code(error: AgentOSError) -> int:
    """The exit code that stands for an error."""
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), FAILED)


def report(error: Exception, *, as_json: bool = False) -> int:
    """Print one of our errors on stderr, and as JSON on stdout; the exit code. Any other error is raised again."""
    if not isinstance(error, AgentOSError):
        raise error
    # The engine advises to create the task; who typed an id at a command line has mistyped one.
    mistyped = isinstance(error, UnknownTask) and not isinstance(error, TaskRetired)
    hint = "list the newest ones: agentos tasks" if mistyped else error.hint
    err.print(Text.assemble(("Error: ", "bold red"), error.message))
    if error.detail:
        err.print(Text(error.detail))
    if hint:
        err.print(Text.assemble(("Fix: ", "bold green"), hint))
    if as_json:
        told = {"type": type(error).__name__, "message": error.message, "hint": hint, "detail": error.detail}
        print(json.dumps({"error": told}))
    return exit_code(error)
