"""What `agentos doctor` says about each finding: the sentence and the fix."""

from collections.abc import Callable
from dataclasses import dataclass
from shlex import quote
from typing import Any

from agentos.cli.output import compact, duration
from agentos.store.calls.timeline import Finding

Say = Callable[[dict[str, Any]], str]


@dataclass(frozen=True, slots=True)
class Told:
    """A finding for people. A `note` waits for a person but is not wrong."""

    finding: str
    note: bool
    message: str
    fix: str
    data: dict[str, Any]


def told(finding: Finding) -> Told:
    """What to say about it."""
    message, fix = _TEXTS[finding.finding]
    data = finding.data
    return Told(finding.finding, finding.finding == "awaits_approval", message(data), fix(data), data)


def _serve(data: dict[str, Any]) -> str:
    if data["queue"] == "@runner":
        return "no worker serves that queue: run its task again with TaskRunner(...).run_with_recovery(task_id)"
    if data["served"]:
        return f"start a worker whose handler of {data['kind']} has version={data['version']}, or accepts it"
    what = "--allow-kind shell" if data["kind"] == "shell" else f"--app with a handler for {data['kind']}"
    return f"start one: agentos-worker --queue {data['queue']} {what}"


def _unroutable(data: dict[str, Any]) -> str:
    oldest = f"the oldest is of {data['task_id']}, made at {data['created_at']}"
    if not data["served"]:
        where = f"items of kind {data['kind']} are ready in queue {data['queue']}"
        return f"{where}, and no living worker serves both; {oldest}"
    return (
        f"items of kind {data['kind']} in version {data['version']} are ready in queue {data['queue']}, and the living "
        f"workers run only {', '.join(map(str, data['served']))}; {oldest}"
    )


def _look(data: dict[str, Any]) -> str:
    return f"agentos show {quote(data['task_id'])}"


def _not_led(data: dict[str, Any]) -> str:
    waiting = []
    if data["next_due_s"] is not None:
        late = data["next_due_s"] < 0
        waiting.append("a scheduled item is " + ("overdue" if late else f"due in {duration(data['next_due_s'])}"))
    if data["late_workers"]:
        waiting.append("leases of a worker that stopped beating wait")
    return f"no coordinator leads, and {' and '.join(waiting)}"


_COORDINATOR: Say = lambda _: "start one: agentos-coordinator (it takes over within its TTL)"  # noqa: E731  a table of them

_TEXTS: dict[str, tuple[Say, Say]] = {
    "partitions_short": (
        lambda d: f"the partitions of {d['parent']} end {d['days_ahead']} day(s) ahead; without one completions fail",
        lambda _: "agentos-coordinator --once",
    ),
    "not_durable": (
        lambda d: f"{d['setting']} is {d['value']}: a crash of the server may lose what was acknowledged",
        lambda d: f"ALTER SYSTEM SET {d['setting']} = on; SELECT pg_reload_conf()",
    ),
    "clock_shifted": (
        lambda d: f"agentos.clock_offset is {d['offset']}: leases expire by a shifted clock; it is for tests",
        lambda _: "ALTER DATABASE … RESET agentos.clock_offset (and the role's, if it has one)",
    ),
    "old_transaction": (
        lambda d: (
            f"pid {d['pid']} ({d['application'] or d['user']}) has been in a transaction for "
            f"{duration(d['age_s'])} ({d['state']}): {compact(d['query'], 80)}"
        ),
        lambda d: f"it keeps dead rows from being removed; end it: SELECT pg_terminate_backend({d['pid']})",
    ),
    "prepared_transaction": (
        lambda d: f"transaction {d['gid']!r} of {d['owner']} has been prepared for {duration(d['age_s'])}",
        lambda d: f"COMMIT PREPARED '{d['gid']}', or ROLLBACK PREPARED '{d['gid']}'",
    ),
    "late_worker": (
        lambda d: (
            f"worker {d['label']} (pid {d['pid']} on {d['host']}) missed its TTL by {duration(d['late_s'])} "
            "and nobody has declared it dead"
        ),
        _COORDINATOR,
    ),
    "orphaned_lease": (
        lambda d: (
            f"item {d['item_id']} of {d['task_id']} is held by {d['worker'] or d['worker_id']}, which does not live"
        ),
        lambda _: "a coordinator takes it back within a sweep; none? agentos-coordinator --once",
    ),
    "unroutable": (
        _unroutable,
        _serve,
    ),
    "nobody_leads": (_not_led, _COORDINATOR),
    "in_doubt": (
        lambda d: f"a call of {d['tool']} in {d['task_id']} was begun at {d['begun_at']} and never finished",
        lambda d: f"find out whether it happened ({_look(d)}); then agentos retry {quote(d['task_id'])}",
    ),
    "quarantined": (
        lambda d: (
            f"item {d['key'] or d['item_id']} of {d['task_id']} killed its process {d['crashes']} times and is "
            "quarantined"
        ),
        lambda d: f"mend its handler ({_look(d)}), then agentos retry {quote(d['task_id'])}",
    ),
    "awaits_approval": (
        lambda d: f"{d['task_id']} asks: {compact(d['question'], 200)}",
        lambda d: f"agentos approve {quote(d['task_id'])} (or --reject); {_look(d)} tells what it is about",
    ),
}
