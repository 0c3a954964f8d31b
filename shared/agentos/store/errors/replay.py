"""The record and the program or the world disagree."""

from agentos.store.errors.base import AgentOSError


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
