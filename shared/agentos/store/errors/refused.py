"""Refused before anything happened: what the caller passed cannot be used."""

from agentos.store.errors.base import AgentOSError


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


class IsolationRefused(InvalidInput):
    """A handler with `isolation="process"` asked for what cannot be had outside of the worker's own process."""
