"""`ToolLedger`: the same command of the same task is executed once; afterwards its recorded result is the answer."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from agentos.core.flows.tools import TOOL_EXPIRES_S, Produces, ToolOutcome, ToolPolicy, call_tool, told
from agentos.core.idempotency.joining import caller, check_seconds
from agentos.core.identity import quick_tool_identity
from agentos.core.verification import verifier
from agentos.store.calls.checkpoints import require_item
from agentos.store.calls.ledger import OnDoubt, ledger_history
from agentos.store.connect import Database
from agentos.store.errors import InvalidInput
from agentos.store.run import drive


class ToolLedger:
    """Tool calls by tool, command and task. Safe for threads. `expires_in_seconds`: default 30 days; the records of a
    running item never expire for it. `may_rerun`: whether `produces` evidence that asks for it may run its command.
    """

    def __init__(
        self, db: Database | None = None, *, expires_in_seconds: float = TOOL_EXPIRES_S, may_rerun: bool = False
    ) -> None:
        """Raises InvalidInput: if `expires_in_seconds` is not above 0."""
        self._expires_s = check_seconds("expires_in_seconds", expires_in_seconds)
        self._db = db or Database.default()
        self._may_rerun = may_rerun
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def execute_or_replay(
        self, tool_name: str, command: Any, task_id: str, execute_fn: Callable[..., Any], *,
        force_execute: bool = False, expires_in_seconds: float | None = None, on_doubt: OnDoubt = "fail",
        probe: Callable[..., Any] | None = None, produces: Produces = (), safe_to_repeat: bool | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """The result of `execute_fn()`, or its record, as a dict with `replayed`; what is no dict is {"result": …}.

        What returned is complete, whatever its exit code; what raised runs again next time. `execute_fn` may take one
        argument, the `ToolCall` with its stable idempotency key. `force_execute` replaces the record.

        A call that was begun and never finished is in doubt: `on_doubt="fail"` (default) stops, `"retry"` runs it
        again, `"probe"` asks `probe(call)`, sync or async, for Done(result), NOT_DONE or UNKNOWN, `"ask"` asks a person
        (`agentos doubts`): inside a handler the item is parked, elsewhere it stops until the answer is there.
        `produces`: evidence that must hold for a replay (or a function from the result to it); where it does not, a
        tool that is `safe_to_repeat` (default: `on_doubt="retry"`) runs again.

        Raises InDoubt, PostconditionFailed: if going on would repeat or invent an effect. UnknownTask. InvalidValue,
        ValueTooLarge: if the command or the result cannot be stored.
        """
        expires_s = self._expires_s
        if expires_in_seconds is not None:
            expires_s = check_seconds("expires_in_seconds", expires_in_seconds)
        policy = ToolPolicy(on_doubt, probe, produces, safe_to_repeat, expires_s)
        identity = quick_tool_identity(tool_name, command, task_id)
        lease, worker_id = caller(self._db, task_id)
        flow = call_tool(
            identity, lease, worker_id, policy, lambda call: execute_fn(*told(execute_fn, call)), force=force_execute,
            verify=verifier(self._db, task_id, may_rerun=self._may_rerun).evidence,
        )  # fmt: skip
        try:
            outcome = drive(self._db, flow)
        except BaseException:
            self._count("executions")
            raise
        self._count(_what_happened(outcome))
        return {**outcome.result, "replayed": outcome.replayed}

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1

    def get_execution_history(self, task_id: str, limit: int = 100) -> list[dict[str, Any]]:
        """The newest `limit` calls of the task, newest first, each with tool_name, command, state (begun, finished,
        failed), in_doubt, result, exit_code, error, executions, replays, repairs, begun_at, finished_at.

        Raises UnknownTask: if there is no such task.
        """
        if not 1 <= limit < 2**31:
            raise InvalidInput(f"limit is {limit!r}", hint="pass a whole number, 1 or more")
        self._db.run(require_item(task_id, None))
        entries = [asdict(entry) for entry in self._db.run(ledger_history(task_id, limit))]
        return [{**entry, "command": entry["arguments"]} for entry in entries]

    def get_stats(self) -> dict[str, Any]:
        """executions, replays, repairs, total_requests and replay_rate (0.0 to 1.0) of this instance since it was made
        or reset. A call that raised counts as an execution.
        """
        with self._lock:
            counts = {name: self._counts[name] for name in ("executions", "replays", "repairs")}
        total = sum(counts.values())
        return {**counts, "total_requests": total, "replay_rate": counts["replays"] / total if total else 0.0}

    def reset_stats(self) -> None:
        """Begin to count at zero."""
        with self._lock:
            self._counts.clear()


def _what_happened(outcome: ToolOutcome) -> str:
    if outcome.repaired:
        return "repairs"
    return "replays" if outcome.replayed else "executions"
