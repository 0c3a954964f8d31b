"""`ctx.log`: a line of the process's log, and an event for whoever follows the task."""

from typing import Any

from agentos.core.logs import get_logger
from agentos.core.telling import Telling
from agentos.store.calls.items import Fence
from agentos.store.canonical import canonical_text
from agentos.store.redact import redact

TOLD_LIMIT = 16_384
"""Bytes of one event: what is told is read live and kept for as long as events are."""


class TaskLog:
    """`ctx.log("message", field=value)`: a line of the process's log, and an event of the task.

    `debug`, `info`, `warning` and `error` are the same at another level; plain `ctx.log` is `info`. Debug lines are not
    events.
    """

    def __init__(self, fence: Fence, attempt: int, telling: Telling | None) -> None:
        self._fence = fence
        self._attempt = attempt
        self._telling = telling
        self._logger = get_logger("agentos.handler")

    def __call__(self, message: str, **fields: Any) -> None:
        """As `info`."""
        self._tell("info", message, fields)

    info = __call__

    def debug(self, message: str, **fields: Any) -> None:
        """To the process's log only."""
        self._logger.debug(message, **fields)

    def warning(self, message: str, **fields: Any) -> None:
        """Something a person should look at some time."""
        self._tell("warning", message, fields)

    def error(self, message: str, **fields: Any) -> None:
        """Something went wrong, and the handler goes on."""
        self._tell("error", message, fields)

    def _tell(self, level: str, message: str, fields: dict[str, Any]) -> None:
        getattr(self._logger, level)(message, **fields)
        if self._telling is not None:
            data = {"level": level, "message": redact(message), **({"fields": fields} if fields else {})}
            self._telling.add(self._fence, self._attempt, "log", checked(data, "log line"))


def checked(data: dict[str, Any], what: str) -> dict[str, Any]:
    """`data`, if the database can keep it. Raises InvalidValue, ValueTooLarge: before anything happened."""
    canonical_text(data, limit=TOLD_LIMIT, what=what)
    return data
