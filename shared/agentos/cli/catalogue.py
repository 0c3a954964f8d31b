"""Every command: where it lives, and its line in `agentos --help`.

Only the module of the command that was typed is imported. The drivers alone take most of a second to import, and
`agentos --help` needs none of it.
"""

from dataclasses import dataclass

START, WORK, LOOK, KEEP = "Start", "Submit and follow", "Look and act", "Database"


@dataclass(frozen=True, slots=True)
class Entry:
    """The function (or group) `name` of the module `agentos.cli.<module>`."""

    name: str
    module: str
    panel: str
    line: str


COMMANDS = (
    Entry("demo", "demo", START, "Watch real work survive a killed worker."),
    Entry("up", "up", START, "Database, coordinator and a worker in this terminal."),
    Entry("submit", "submit", WORK, "Submit a task of one item."),
    Entry("run", "run", WORK, "Submit a plan file (YAML or JSON) and follow it to its end."),
    Entry("wait", "wait", WORK, "Wait for the end of a task and print its result."),
    Entry("follow", "events", WORK, "Print what happens to a task, as it happens."),
    Entry("tasks", "tasks", LOOK, "List the newest tasks."),
    Entry("show", "show", LOOK, "Everything that happened to a task."),
    Entry("cancel", "operate", LOOK, "Cancel a task."),
    Entry("pause", "operate", LOOK, "Let nothing of a task begin until it is resumed."),
    Entry("resume", "operate", LOOK, "End the pause of a task."),
    Entry("retry", "operate", LOOK, "Open the items of a failed or cancelled task again."),
    Entry("dead", "rewind", LOOK, "List the tasks that failed, and what a retry would do."),
    Entry("rewind", "rewind", LOOK, "Go back to a checkpoint of a task, and on from there."),
    Entry("fork", "fork", LOOK, "Make a new task that begins at a checkpoint of another one."),
    Entry("approve", "operate", LOOK, "Answer what a task asks: yes, or --reject."),
    Entry("signal", "operate", LOOK, "Send a signal to a task that waits for it, or will."),
    Entry("doubts", "doubts", LOOK, "List the calls that nobody knows the end of."),
    Entry("resolve", "doubts", LOOK, "Say what became of a call in doubt."),
    Entry("budget", "budget", LOOK, "What a task may spend on models; raise its limits."),
    Entry("usage", "usage", LOOK, "Tokens and cost, spent and saved, by task, model and day."),
    Entry("queue", "queues", LOOK, "List queues; let one stand still, or go on."),
    Entry("limit", "limits", LOOK, "How much may run, start or wait at once."),
    Entry("workers", "workers", LOOK, "List the workers."),
    Entry("cron", "cron", LOOK, "List and run what is submitted by the calendar."),
    Entry("stats", "stats", LOOK, "How much there is to do and was done, by queue and kind."),
    Entry("doctor", "doctor", LOOK, "Look for what is wrong, each with its fix."),
    Entry("purge", "purge", KEEP, "Take a task's content away; what happened stays."),
    Entry("retention", "retention", KEEP, "What is kept no longer: what would go, or --apply."),
    Entry("crashtest", "crashtest", KEEP, "Kill a worker at every durable point, and check the end."),
    Entry("migrate", "migrate", KEEP, "Bring the schema of the database to this version."),
    Entry("db", "db", KEEP, "Start, stop or look at the embedded database."),
)
