"""Every error agentos raises, in one registry.

```
AgentOSError
├── EngineError            raised by an SQL function: one class per SQLSTATE AG0xx
│   ├── LeaseLost TaskHeld TaskFinished TaskExists WorkerDead SeveralQuestions StaleAnswer UnknownOption
│   ├── AnswerRefused WrongDatabase
│   └── UnknownTask UnknownWorkItem UnknownCheckpoint UnknownWorker
├── InvalidInput           what the caller passed cannot be used; nothing has happened
│   └── InvalidValue ValueTooLarge InvalidCheckpointType InvalidPlan InvalidArguments UnknownKind UnknownStep ...
├── DatabaseError          the database cannot be used as it is
│   └── DatabaseUnavailable DatabaseBusy DatabaseTooOld MissingPrivilege SchemaMissing SchemaIncomplete SchemaTooNew
├── ReplayError            the record and the program or the world disagree
│   └── InDoubt ProgramChanged CallBeforeCheckpoint CheckpointInvalid PostconditionFailed
└── TaskFailed TaskCancelled TaskTimeout   how a task ended, raised by `handle.result()`
```

An SQL function raises SQLSTATE AG0xx with a HINT; `from_sqlstate` finds the class by the code alone, because
asyncpg files unknown codes under FatalPostgresError and psycopg under DatabaseError.
"""

from typing import ClassVar


class AgentOSError(Exception):
    """Base of all errors of agentos. `hint` says what to do next; `str()` shows message and hint."""

    def __init__(self, message: str, *, hint: str | None = None, detail: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail

    def __str__(self) -> str:
        parts = [self.message]
        if self.detail:
            parts.append(self.detail)
        if self.hint:
            parts.append(f"Fix: {self.hint}")
        return "\n".join(parts)


# -- raised by the engine -----------------------------------------------------------------------------------------


class EngineError(AgentOSError):
    """A transition the engine refused. Nothing was written."""

    sqlstate: ClassVar[str]


class LeaseLost(EngineError):
    """The fence did not match: the item is no longer yours. Stop; do not retry. Not `WorkerDead`: that is all items."""

    sqlstate = "AG001"


class TaskHeld(EngineError):
    """A living worker holds an item of this task. Wait for it, or cancel the task."""

    sqlstate = "AG002"


class UnknownTask(EngineError):
    """No task has this id. Create it first with `TaskManager().create_task(...)`."""

    sqlstate = "AG003"


class UnknownWorkItem(EngineError):
    """No work item of this task has this id. Without one, put the id into the snapshot instead."""

    sqlstate = "AG004"


class WorkerDead(EngineError):
    """The worker was declared dead (no beat within its TTL) or its claim epoch is old. Drop everything it held."""

    sqlstate = "AG005"


class IdempotencyConflict(EngineError):
    """The idempotency key was used before, for a submit of another kind or payload. Nothing was submitted."""

    sqlstate = "AG046"


class TaskExists(EngineError):
    """A task with this id exists already."""

    sqlstate = "AG006"


class TaskFinished(EngineError):
    """The task is completed, failed or cancelled; nothing can be added to it."""

    sqlstate = "AG007"


class UnknownCheckpoint(EngineError):
    """No checkpoint has this id."""

    sqlstate = "AG008"


class InvalidDependency(EngineError):
    """Items name each other wrongly: an unknown key, one key twice, an item that needs itself, a cycle."""

    sqlstate = "AG009"


class UnknownWorker(EngineError):
    """No worker has this id."""

    sqlstate = "AG010"


class NotRetryable(EngineError):
    """The task is not in a state that can be retried or cancelled."""

    sqlstate = "AG011"


class WrongIsolation(EngineError):
    """The engine fences only at READ COMMITTED; this transaction runs at another level."""

    sqlstate = "AG012"


class AnswerRefused(EngineError):
    """The doubt was answered before, or its call is not in doubt any more, or this is no answer to it."""

    sqlstate = "AG020"


class TaskCancelled(EngineError):
    """The task was cancelled: raised in its running handlers, and by `handle.result()`."""

    sqlstate = "AG013"


class SeveralQuestions(EngineError):
    """The task waits for several answers; say which question is answered."""

    sqlstate = "AG030"


class StaleAnswer(EngineError):
    """The answer is to other content than what is asked: what was shown has changed since."""

    sqlstate = "AG031"


class UnknownOption(EngineError):
    """The answer's option is not one of those of the question."""

    sqlstate = "AG032"


class PartsMissing(EngineError):
    """A large value names parts that are not stored. Nothing was written; sent with all its parts it is."""

    sqlstate = "AG045"


class WrongDatabase(EngineError):
    """A connection that was to be joined is on another database than the worker."""

    sqlstate = "AG070"


# -- refused before anything happened -----------------------------------------------------------------------------


class InvalidInput(AgentOSError, ValueError):
    """What was passed cannot be used. Nothing has happened."""


class ConfigInvalid(InvalidInput):
    """A setting, environment variable or option has a value that cannot be used."""


class EffectInTransaction(InvalidInput):
    """A tool, a model or a wait was asked for inside `ctx.transaction()`. Nothing of the transaction was kept."""


class InvalidArguments(InvalidInput):
    """The payload does not fit the handler's signature. Terminal: no retry can mend it."""


class InvalidArtifact(InvalidInput):
    """There is no such file to store as an artifact, or nobody can tell which artifact is meant."""


class InvalidCheckpointType(InvalidInput):
    """The checkpoint type is not one of the eight."""


class InvalidEvidence(InvalidInput):
    """The evidence is not well-formed. Evidence that is well-formed but false is a verdict, not an error."""


class InvalidPlan(InvalidInput):
    """A plan file, or the plan a model made, does not fit the schema; `detail` lists each place with its line."""


class InvalidValue(InvalidInput):
    """A value that JSON in Postgres cannot hold: NUL, lone surrogate, NaN, Infinity, bytes, set, cycle, deep
    nesting."""


class SandboxUnavailable(InvalidInput):
    """A command was to run in a sandbox, and this host cannot make one. Nothing was run."""


class TransactionOpen(InvalidInput):
    """A transaction is open where none may be: a second one inside it, or one that was joined and not committed."""


class UnknownKind(InvalidInput):
    """No handler is registered for this kind."""


class UnknownStep(InvalidInput):
    """`commit_step` got a step id that this manager did not begin, or that was committed already."""


class UnknownTool(InvalidInput):
    """No tool is registered under this name."""


class ValueTooLarge(InvalidInput):
    """A payload, snapshot, result or output is larger than its limit."""


# -- the database cannot be used ----------------------------------------------------------------------------------


class DatabaseError(AgentOSError):
    """The database cannot be used as it is."""


class DatabaseBusy(DatabaseError):
    """A lock or a statement took longer than its limit, or a deadlock was broken. Nothing was written."""


class DatabaseTooOld(DatabaseError):
    """The server is older than PostgreSQL 15."""


class DatabaseUnavailable(DatabaseError):
    """The server cannot be reached, or the connection broke and the outcome of the call is not known."""


class EmbeddedFailed(DatabaseError):
    """The embedded server could not be created, started or stopped where it is kept (access, space, version)."""


class EmbeddedUnsupported(DatabaseError):
    """The embedded server cannot run on this platform; a DSN is needed."""


class EmbeddedInUse(DatabaseError):
    """The embedded server has living users and was not stopped."""


class MissingPrivilege(DatabaseError):
    """The role may not do what was asked (SQLSTATE 42501)."""


class SchemaIncomplete(DatabaseError):
    """The schema is half migrated, or older than this version of agentos."""


class SchemaMissing(DatabaseError):
    """The database has no agentos schema."""


class SchemaTooNew(DatabaseError):
    """The schema was migrated by a newer agentos than this one."""


# -- the record and the world disagree ----------------------------------------------------------------------------


class ReplayError(AgentOSError):
    """Going on would repeat or invent a side effect. Terminal for the item until a person decides."""


class CallBeforeCheckpoint(ReplayError):
    """An unkeyed tool call was recorded before the checkpoint the item resumed from: the handler ignored its
    snapshot."""


class CheckpointInvalid(ReplayError):
    """The checkpoint's evidence does not hold now, or its snapshot is not what was committed. Nothing was changed."""


class InDoubt(ReplayError):
    """A tool call was begun and never finished, and its tool does not say what to do then (`on_doubt`)."""


class ProgramChanged(ReplayError):
    """A handler asks for a call that is not recorded, before a recorded one that it made the last time."""


class PostconditionFailed(ReplayError):
    """A recorded call's `produces` evidence no longer holds and its tool is not declared safe to repeat."""


# -- how a task or an attempt ended -------------------------------------------------------------------------------


class ArtifactUnavailable(AgentOSError):
    """The artifact store cannot be reached or written to, or does not have the artifact whole. It may later."""


class CommandFailed(AgentOSError):
    """A command of a work item ended with an exit code that its item does not allow."""


class DemoFailed(AgentOSError):
    """A process of `agentos demo` did not appear, or ended by itself."""


class NonRetryable(AgentOSError):
    """Raise it in a handler to fail the item at once, whatever `max_attempts` says."""


class BudgetExceeded(NonRetryable):
    """The task's budget does not allow the call: which limit, what is spent, what was asked. It was not made."""


class RetryAfter(AgentOSError):
    """Raise it in a handler to be called again after so many seconds. It counts as a failure of the attempt."""

    def __init__(self, seconds: float, message: str | None = None) -> None:
        """Raises InvalidInput: if `seconds` is not between 0 and 30 days."""
        if not 0 <= seconds <= 30 * 86_400:
            raise InvalidInput(f"RetryAfter({seconds!r})", hint="pass seconds, at most 30 days of them")
        super().__init__(message or f"try again after {seconds:g} s")
        self.wait_s = float(seconds)


class LLMError(AgentOSError):
    """The model's endpoint answered with an error, or with something that cannot be used."""


class LLMUnavailable(LLMError):
    """The endpoint cannot be reached, is overloaded, or limits calls. The same call may succeed later."""

    wait_s: float | None = None
    """Seconds that the endpoint asks to wait, None if it does not say."""


class OutputTruncated(LLMError, NonRetryable):
    """The model's output was cut off by a limit or a filter. It was paid, and is not cached."""

    completion: object = None
    """What there is of it (a `Completion`), None if nothing is."""


class TaskFailed(AgentOSError):
    """The task failed; the message is its readable reason."""


class TaskTimeout(AgentOSError, TimeoutError):
    """The task did not end within the time given to `result(timeout)`; it goes on."""


class ApprovalRejected(NonRetryable):
    """A person said no to what `ctx.approval` asked. Not caught, it fails the item at once."""


class ChildFailed(NonRetryable):
    """A child task failed or was cancelled: raised by `ctx.gather`, with the child's reason."""


class WaitTimeout(NonRetryable, TimeoutError):
    """Nothing ended `ctx.wait_for` or `ctx.approval` within its `timeout_s`. It is recorded so: no retry mends it."""


class ToolLimitExceeded(AgentOSError):
    """A command used more memory or more processes than it may, and was killed."""


class ToolTimeout(AgentOSError):
    """A tool or handler ran longer than its `timeout_s` and was stopped."""


class TransactionAborted(AgentOSError):
    """A statement inside `ctx.transaction()` failed and its error was caught: the transaction cannot be committed."""


class TransactionTimeout(AgentOSError, TimeoutError):
    """`ctx.transaction()` was open longer than it may hold the lease's row. Nothing of it was kept."""


BY_SQLSTATE: dict[str, type[EngineError]] = {cls.sqlstate: cls for cls in EngineError.__subclasses__()}


def from_sqlstate(code: str, message: str, hint: str | None, detail: str | None) -> AgentOSError | None:
    """The error for `code`, or None when agentos has no class for it."""
    if cls := BY_SQLSTATE.get(code):
        return cls(message, hint=hint, detail=detail)
    if code == "42501":
        return MissingPrivilege(message, hint="grant the role what `agentos migrate --help` lists, or use another role")
    return None
