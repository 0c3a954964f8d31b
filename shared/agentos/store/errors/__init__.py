"""Every error agentos raises, in one registry.

```
AgentOSError
├── EngineError            raised by an SQL function: one class per SQLSTATE AG0xx
│   ├── LeaseLost TaskHeld TaskFinished TaskExists WorkerDead SeveralQuestions StaleAnswer UnknownOption
│   ├── AnswerRefused WrongDatabase TaskOpen TaskPurged TaskRetired ForkRefused LanesChanged QueueFull
│   ├── PartitionRefused QueuePaused
│   └── UnknownTask UnknownWorkItem UnknownCheckpoint UnknownWorker
├── InvalidInput           what the caller passed cannot be used; nothing has happened
│   └── InvalidValue ValueTooLarge InvalidCheckpointType InvalidPlan InvalidArguments UnknownKind UnknownStep ...
├── DatabaseError          the database cannot be used as it is
│   └── DatabaseUnavailable (EngineReplaced) TransportRefused DatabaseBusy DatabaseTooOld MissingPrivilege
│       SchemaMissing SchemaIncomplete SchemaTooNew
├── ReplayError            the record and the program or the world disagree
│   └── InDoubt ProgramChanged CallBeforeCheckpoint CheckpointInvalid PostconditionFailed
└── TaskFailed TaskCancelled TaskTimeout   how a task ended, raised by `handle.result()`
```

An SQL function raises SQLSTATE AG0xx with a HINT; `from_sqlstate` finds the class by the code alone, because
asyncpg files unknown codes under FatalPostgresError and psycopg under DatabaseError.
"""

from agentos.store.errors.base import (
    AgentOSError,
)
from agentos.store.errors.database import (
    DatabaseBusy,
    DatabaseError,
    DatabaseTooOld,
    DatabaseUnavailable,
    EmbeddedFailed,
    EmbeddedInUse,
    EmbeddedUnsupported,
    EngineReplaced,
    MissingPrivilege,
    SchemaIncomplete,
    SchemaMissing,
    SchemaTooNew,
    TransportRefused,
)
from agentos.store.errors.ending import (
    ApprovalRejected,
    ArtifactUnavailable,
    BudgetExceeded,
    ChildFailed,
    CommandFailed,
    DemoFailed,
    IsolatedHandlerDied,
    LLMError,
    LLMUnavailable,
    NonRetryable,
    OutputTruncated,
    RetryAfter,
    TaskFailed,
    TaskTimeout,
    ToolLimitExceeded,
    ToolTimeout,
    TransactionAborted,
    TransactionTimeout,
    WaitTimeout,
)
from agentos.store.errors.engine import (
    AnswerRefused,
    EngineError,
    ForkRefused,
    IdempotencyConflict,
    InvalidDependency,
    LanesChanged,
    LeaseLost,
    NotRetryable,
    PartitionRefused,
    PartsMissing,
    QueueFull,
    QueuePaused,
    SeveralQuestions,
    StaleAnswer,
    StatisticsStale,
    TaskCancelled,
    TaskExists,
    TaskFinished,
    TaskHeld,
    TaskOpen,
    TaskPurged,
    TaskRetired,
    UnknownCheckpoint,
    UnknownCron,
    UnknownOption,
    UnknownTask,
    UnknownWorker,
    UnknownWorkItem,
    WorkerDead,
    WrongDatabase,
    WrongIsolation,
)
from agentos.store.errors.refused import (
    ConfigInvalid,
    EffectInTransaction,
    InvalidArguments,
    InvalidArtifact,
    InvalidCheckpointType,
    InvalidEvidence,
    InvalidInput,
    InvalidPlan,
    InvalidValue,
    IsolationRefused,
    SandboxUnavailable,
    TransactionOpen,
    UnknownKind,
    UnknownStep,
    UnknownTool,
    ValueTooLarge,
)
from agentos.store.errors.replay import (
    CallBeforeCheckpoint,
    CheckpointInvalid,
    InDoubt,
    PostconditionFailed,
    ProgramChanged,
    ReplayError,
)
from agentos.store.errors.sealed import CodecFailed, ContentSealed

__all__ = [
    "AgentOSError",
    "AnswerRefused",
    "ApprovalRejected",
    "ArtifactUnavailable",
    "BudgetExceeded",
    "CallBeforeCheckpoint",
    "CheckpointInvalid",
    "ChildFailed",
    "CodecFailed",
    "CommandFailed",
    "ConfigInvalid",
    "ContentSealed",
    "DatabaseBusy",
    "DatabaseError",
    "DatabaseTooOld",
    "DatabaseUnavailable",
    "DemoFailed",
    "EffectInTransaction",
    "EmbeddedFailed",
    "EmbeddedInUse",
    "EmbeddedUnsupported",
    "EngineError",
    "EngineReplaced",
    "ForkRefused",
    "IdempotencyConflict",
    "InDoubt",
    "InvalidArguments",
    "InvalidArtifact",
    "InvalidCheckpointType",
    "InvalidDependency",
    "InvalidEvidence",
    "InvalidInput",
    "InvalidPlan",
    "InvalidValue",
    "IsolatedHandlerDied",
    "IsolationRefused",
    "LLMError",
    "LLMUnavailable",
    "LanesChanged",
    "LeaseLost",
    "MissingPrivilege",
    "NonRetryable",
    "NotRetryable",
    "OutputTruncated",
    "PartitionRefused",
    "PartsMissing",
    "PostconditionFailed",
    "ProgramChanged",
    "QueueFull",
    "QueuePaused",
    "ReplayError",
    "RetryAfter",
    "SandboxUnavailable",
    "SchemaIncomplete",
    "SchemaMissing",
    "SchemaTooNew",
    "SeveralQuestions",
    "StaleAnswer",
    "StatisticsStale",
    "TaskCancelled",
    "TaskExists",
    "TaskFailed",
    "TaskFinished",
    "TaskHeld",
    "TaskOpen",
    "TaskPurged",
    "TaskRetired",
    "TaskTimeout",
    "ToolLimitExceeded",
    "ToolTimeout",
    "TransactionAborted",
    "TransactionOpen",
    "TransactionTimeout",
    "TransportRefused",
    "UnknownCheckpoint",
    "UnknownCron",
    "UnknownKind",
    "UnknownOption",
    "UnknownStep",
    "UnknownTask",
    "UnknownTool",
    "UnknownWorkItem",
    "UnknownWorker",
    "ValueTooLarge",
    "WaitTimeout",
    "WorkerDead",
    "WrongDatabase",
    "WrongIsolation",
    "from_sqlstate",
]  # fmt: skip

BY_SQLSTATE: dict[str, type[EngineError]] = {
    cls.sqlstate: cls for base in (EngineError, UnknownTask) for cls in base.__subclasses__()
}


def from_sqlstate(code: str, message: str, hint: str | None, detail: str | None) -> AgentOSError | None:
    """The error for `code`, or None when agentos has no class for it."""
    if cls := BY_SQLSTATE.get(code):
        return cls(message, hint=hint, detail=detail)
    return None
