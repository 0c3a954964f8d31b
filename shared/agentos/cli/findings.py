"""What `agentos doctor` says about each finding: the sentence and the fix."""

from collections.abc import Callable
from dataclasses import dataclass
from shlex import quote
from typing import Any, Literal

from agentos.cli.output import compact, duration
from agentos.store.calls.timeline import Finding

Say = Callable[[dict[str, Any]], str]
Severity = Literal["problem", "warning", "note"]
NOTES = frozenset({"awaits_approval", "failed_tasks", "queue_paused", "pooled"})
WARNINGS = frozenset({
    "clock_skew", "loop_lag", "version_skew", "connection_budget", "bloated", "vacuum_settings", "silent_attempt",
    "counts_old", "retention_behind", "partition_blocked",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Told:
    """A finding for people. `severity`: a `problem` has to be mended, a `warning` looked at, a `note` waits for a
    person but is not wrong.
    """

    finding: str
    severity: Severity
    message: str
    fix: str
    data: dict[str, Any]


def told(finding: Finding) -> Told:
    """What to say about it."""
    message, fix = _TEXTS[finding.finding]
    data = finding.data
    severity: Severity = "note" if finding.finding in NOTES else "warning" if finding.finding in WARNINGS else "problem"
    return Told(finding.finding, severity, message(data), fix(data), data)


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
        lambda d: f"agentos.clock() is shifted by {d['offset_s']:+} s, as tests do: leases expire by it",
        lambda _: (
            "CREATE OR REPLACE FUNCTION agentos.clock() RETURNS timestamptz LANGUAGE sql VOLATILE "
            "AS 'SELECT clock_timestamp()'"
        ),
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
    "cron_undeclared": (
        lambda d: (
            f"no living worker's app declares the cron entry {d['name']} ({d['expression']}); it fires all the same"
        ),
        lambda d: f"agentos cron remove {quote(d['name'])}, if the app dropped it",
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
    "autovacuum_off": (
        lambda d: (
            f"{d['setting']} is off{' for agentos.' + d['table'] if d['table'] else ''}: dead rows stay, and claims "
            "walk over them"
        ),
        lambda d: (
            f"ALTER TABLE agentos.{d['table']} RESET (autovacuum_enabled)"
            if d["table"]
            else f"ALTER SYSTEM SET {d['setting']} = on; SELECT pg_reload_conf()"
        ),
    ),
    "vacuum_settings": (
        lambda d: (
            f"agentos.{d['table']} lacks {', '.join(d['missing'])}: it is vacuumed too late, or locked while it is"
        ),
        lambda d: f"ALTER TABLE agentos.{d['table']} SET ({', '.join(d['missing'])})",
    ),
    "bloated": (
        lambda d: (
            f"agentos.{d['table']} has about {d['dead']} dead rows and {d['live']} live ones "
            f"({d['bytes'] // 2**20} MiB); last vacuumed {d['vacuumed_at'] or 'never'}"
        ),
        lambda d: f"find what holds the horizon (an old transaction, a slot), then: VACUUM agentos.{d['table']}",
    ),
    "replication_slot": (
        lambda d: (
            f"nobody reads the {d['type']} replication slot {d['slot']}: it keeps "
            f"{(d['wal_bytes'] or 0) // 2**20} MiB of WAL"
            + (f", and dead rows for {d['xmin_age']} transactions" if d["xmin_age"] is not None else "")
        ),
        lambda d: (
            "start its standby or subscriber; if there is none any more: "
            f"SELECT pg_drop_replication_slot('{d['slot']}')"
        ),
    ),
    "clock_skew": (
        lambda d: f"the clock of {d['host']} differs from the database's by {d['skew_s']:+.1f} s",
        lambda _: "synchronise both (chrony); leases are safe, they know the database's clock only, but logs mislead",
    ),
    "loop_lag": (
        lambda d: f"the event loop of worker {d['worker']} (pid {d['pid']} on {d['host']}) is {d['lag_s']:.1f} s late",
        lambda _: 'a handler blocks it: await what takes long, make it a plain def, or isolation="process"',
    ),
    "version_skew": (
        lambda d: (
            "workers run different versions: " + ", ".join(f"{n} of {v}" for v, n in sorted(d["versions"].items()))
        ),
        lambda _: "finish the deploy; while one is under way this is no fault",
    ),
    "connection_budget": (
        lambda d: (
            f"{d['workers']} workers and what else connects may need {d['needed']} connections; the server has "
            f"{d['usable']}, {d['used']} of them in use"
        ),
        lambda _: "raise max_connections, run fewer workers with more --concurrency, or put PgBouncer between",
    ),
    "blocked": (
        lambda d: (
            f"pid {d['pid']} ({d['application']}) has waited {duration(d['waits_s'])} for a lock of "
            f"pid {', '.join(map(str, d['blockers'])) or 'nobody any more'}: {compact(d['query'], 80)}"
        ),
        lambda d: f"end who holds it: SELECT pg_terminate_backend({d['blockers'][0] if d['blockers'] else d['pid']})",
    ),
    "silent_attempt": (
        lambda d: (
            f"item {d['item_id']} of {d['task_id']} has been held for {duration(d['held_s'])} by {d['worker']} on "
            f"{d['host']} and recorded nothing lately"
        ),
        lambda d: (
            f"see what it does ({_look(d)}); agentos cancel {quote(d['task_id'])}, and give its handler a timeout_s"
        ),
    ),
    "counts_old": (
        lambda d: f"a coordinator leads, and depth and age were last counted {duration(d['age_s'])} ago",
        lambda _: "its log says why (duty statistics); autoscalers keep what they have until it counts again",
    ),
    "retention_behind": (
        lambda d: f"retention came to its end {duration(d['age_s'])} ago, and has not since",
        lambda _: "its log says why (duty retention); a backlog? agentos retention --apply works beside it",
    ),
    "partition_blocked": (
        lambda d: f"partition {d['partition']} is to go and cannot: {d['reason']}",
        lambda _: "end what is in the way (old transactions: agentos doctor --old 60); the next round tries again",
    ),
    "pooled": (
        lambda d: (
            f"a pooler in transaction mode is in front of {d['host']}: nothing is prepared, and a worker that comes "
            "this way polls for work instead of being woken"
        ),
        lambda _: "give workers a DSN of the server, or of a pool in session mode; is polling quick enough: none",
    ),
    "failed_tasks": (
        lambda d: f"{d['items']} item(s) failed for good within a day, such as one of {d['task_id']}",
        lambda d: f"agentos tasks --status failed; {_look(d)}; mended: agentos retry {quote(d['task_id'])}",
    ),
    "put_off": (
        lambda d: f"{d['items']} item(s) are put off again and again, such as one of {d['task_id']}: {d['error']}",
        lambda d: f"{d['fix'] or 'give the workers the codec and its keys'} ({_look(d)})",
    ),
    "waits_again": (
        lambda d: (
            f"{d['task_id']} waits for {d['wait']} {compact(d['arguments'], 80)}, which was over {d['times']} time(s) "
            "before: its handler checkpoints the same snapshot again before it comes to its wait"
        ),
        lambda d: f"checkpoint only `if ctx.snapshot is None`, or after the wait (docs/waits.md); {_look(d)}",
    ),
    "queue_paused": (
        lambda d: f"queue {d['queue']} was paused by {d['by'] or 'somebody'} {duration(d['paused_s'])} ago",
        lambda d: f"if nobody needs that any more: agentos queue resume {quote(d['queue'])}",
    ),
    "awaits_approval": (
        lambda d: f"{d['task_id']} asks: {compact(d['question'], 200)}",
        lambda d: f"agentos approve {quote(d['task_id'])} (or --reject); {_look(d)} tells what it is about",
    ),
}
