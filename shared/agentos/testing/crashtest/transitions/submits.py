"""Tasks that are made, and the lanes that they are made in."""

import json

from agentos.core.app import App
from agentos.store.calls import budgets, flow, tasks, traces, workers
from agentos.store.calls.budgets import Limits
from agentos.store.connect import Database
from agentos.store.errors import InvalidDependency, TaskExists
from agentos.testing.crash import COMMIT
from agentos.testing.crashtest.transition import KIND, Stage, Transition

TRACEPARENT = f"00-{'1' * 32}-{'2' * 16}-01"


def _tasks(stage: Stage) -> int:
    (found,) = stage.see("SELECT count(*) FROM agentos.task_records r WHERE r.queue = $1::text", stage.name)
    return int(found)


def _items(stage: Stage) -> int:
    return len(stage.places())


def _lanes(stage: Stage) -> int:
    (found,) = stage.see("SELECT count(*) FROM agentos.lanes l WHERE l.queue = $1::text", stage.name)
    return int(found)


def _submit_many(stage: Stage, db: Database) -> None:
    db.run(tasks.submit_many(stage.ids(3), KIND, "a crash test", ["{}"] * 3, queue=stage.name))


def _submit_with(stage: Stage, db: Database) -> None:
    submit = tasks.submit(stage.task_id, KIND, "a crash test", "{}", queue=stage.name)
    dated = tasks.with_deadline(submit, [stage.task_id], 86_400)
    budgeted = budgets.with_budget(dated, [stage.task_id], Limits(calls=1), "park")
    db.run(traces.with_trace(budgeted, [stage.task_id], TRACEPARENT, None))


def _all_of_it(stage: Stage) -> tuple[object, ...]:
    return (_tasks(stage), *stage.see(
        "SELECT (SELECT count(*) FROM agentos.deadlines d WHERE d.task_id = $1::text),"
        " (SELECT count(*) FROM agentos.budgets b WHERE b.task_id = $1::text AND b.max_calls = 1),"
        " (SELECT count(*) FROM agentos.traces t WHERE t.task_id = $1::text)", stage.task_id,
    ))  # fmt: skip


def _submit_key(stage: Stage, db: Database) -> str:
    """Each time under another id: only the key tells that it is the same."""
    return _app(db).submit(KIND, {"n": 1}, queue=stage.name, idempotency_key=stage.name).task_id


def _submit_unique(stage: Stage, db: Database) -> str:
    return _app(db).submit(KIND, {"n": 1}, queue=stage.name, unique_for_s=3600, unique_key=stage.name).task_id


def _app(db: Database) -> App:
    return App(dsn=db.dsn)


def _create_task(stage: Stage, db: Database) -> None:
    plan = [{"key": "a", "kind": KIND}, {"key": "b", "kind": KIND, "depends_on": ["a"]}]
    db.run(tasks.create_task(stage.task_id, "a crash test", queue=stage.name, items=json.dumps(plan)))


def _empty_task(stage: Stage) -> None:
    stage.run(tasks.create_task(stage.task_id, "a crash test", queue=stage.name))


def _add_items(stage: Stage, db: Database) -> None:
    new = [(key, KIND, "{}", None, None, None, None) for key in ("a", "b")]
    db.run(tasks.add_items(stage.task_id, new, queue=stage.name))


def _add_alike(stage: Stage, db: Database) -> None:
    db.run(tasks.add_alike(stage.task_id, KIND, ["a", "b"], ["{}", "{}"], queue=stage.name))


def _set_budget(stage: Stage, db: Database) -> None:
    db.run(budgets.set_budget(stage.task_id, Limits(calls=7), "fail"))


def _budgeted_parent(stage: Stage) -> None:
    stage.submit(2)
    stage.run(budgets.set_budget(stage.task_id, Limits(calls=1), "park"))


def _inherit_budget(stage: Stage, db: Database) -> None:
    db.run(budgets.inherit_budget(*stage.ids(2)))


TRANSITIONS = (
    Transition(
        "submit_many", "many tasks in one call", _submit_many, _tasks, 3, refused=(TaskExists,),
    ),
    Transition(
        "submit_with", "a task with its deadline, budget and trace", _submit_with, _all_of_it, (1, 1, 1, 1),
        refused=(TaskExists,), calls=("set_deadline", "set_budget", "set_trace"),
    ),
    Transition(
        "submit_key", "a submit under an idempotency key", _submit_key, _tasks, 1,
        calls=("submit_key", COMMIT), inside=("submit_key",),
    ),
    Transition(
        "submit_unique", "a submit that is unique for a time", _submit_unique, _tasks, 1,
        calls=("submit_unique", COMMIT), inside=("submit_unique",),
    ),
    Transition("create_task", "a task of many items", _create_task, _items, 2, refused=(TaskExists,)),
    Transition(
        "add_items", "items added to a task", _add_items, _items, 2, arrange=_empty_task, refused=(InvalidDependency,),
    ),
    Transition(
        "add_alike", "items that say little added to a task", _add_alike, _items, 2, arrange=_empty_task,
        refused=(InvalidDependency,),
    ),
    Transition(
        "set_budget", "a budget for a task that is there", _set_budget,
        lambda stage: [line.most for line in stage.run(budgets.budget_of(stage.task_id))], [7], arrange=Stage.submit,
    ),
    Transition(
        "inherit_budget", "a child's calls count for its parent", _inherit_budget,
        lambda stage: stage.see("SELECT b.parent = $2 FROM agentos.budgets b WHERE b.task_id = $1", stage.ids(2)[1],
                                stage.task_id),
        (True,), arrange=_budgeted_parent,
    ),
    Transition(
        "lane_of", "a lane", lambda stage, db: db.run(flow.lane_of(stage.name, KIND)), _lanes, 1,
    ),
    Transition(
        "lanes_of", "the lanes of a worker", lambda stage, db: db.run(workers.lanes_of([stage.name], [KIND, "b"])),
        _lanes, 2,
    ),
    Transition(
        "served_lanes", "what a worker may claim from",
        lambda stage, db: db.run(flow.served_lanes([stage.name], [KIND, "b"], [0, 0])), _lanes, 2,
    ),
)  # fmt: skip
