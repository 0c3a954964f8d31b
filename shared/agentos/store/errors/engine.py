"""Raised by the engine: one class per SQLSTATE AG0xx. Nothing was written."""

from typing import ClassVar

from agentos.store.errors.base import AgentOSError


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


class LanesChanged(EngineError):
    """A queue was paused, a limit set, or a lane made since the worker looked. Nothing was claimed; it looks again."""

    sqlstate = "AG080"


class QueueFull(EngineError):
    """The queue has as many ready items as its `max_depth` lets in. Nothing was submitted; submit it again later."""

    sqlstate = "AG081"


class QueuePaused(EngineError):
    """The queue was paused by an operator. Nothing was claimed; workers go on by themselves when it is resumed."""

    sqlstate = "AG082"


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


class TaskOpen(EngineError):
    """The task, or one of its family, has not ended: what is asked can only be done to one that has."""

    sqlstate = "AG047"


class TaskPurged(EngineError):
    """The task's content was taken away (`agentos purge`): there is no result, and nothing to go on from."""

    sqlstate = "AG048"


class TaskRetired(UnknownTask):
    """The task, or what its work recorded, was retired: it ended too long ago. Submit the work as a new task."""

    sqlstate = "AG050"


class PartitionRefused(EngineError):
    """There is no such day partition, it is too young to go, or it is on its way out and takes nothing more."""

    sqlstate = "AG051"


class ForkRefused(EngineError):
    """A record of the task could not go along with a fork, so that its effect might be done again. Nothing was made."""

    sqlstate = "AG049"


class WrongDatabase(EngineError):
    """A connection that was to be joined is on another database than the worker."""

    sqlstate = "AG070"


class StatisticsStale(EngineError):
    """The coordinator's counts are too old to go by: none runs, or its database keeps it waiting."""

    sqlstate = "AG060"


class UnknownCron(EngineError):
    """There is no cron entry of that name."""

    sqlstate = "AG061"
