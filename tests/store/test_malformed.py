"""Values that Postgres or JSON cannot hold are refused and nothing is written; all others come back exactly."""

import json
import secrets
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from tests.drivers import Driver
from tests.store import engine

from agentos.store.calls import cache, checkpoints, items, ledger, tasks
from agentos.store.calls.items import ClaimedItem
from agentos.store.canonical import canonical, canonical_text
from agentos.store.errors import InvalidValue, ValueTooLarge
from agentos.store.run import Call

BAD_TEXT = {"NUL": "a\x00b", "high surrogate": "a\ud800", "low surrogate": "\udfffb"}
BAD_JSON = {
    "NUL": '{"a":"\x00"}',
    "surrogate": '"\ud800"',
    "NaN": '{"a":NaN}',
    "Infinity": "[-Infinity]",
    "cut off": '{"a":',
    "empty": "",
    "two": "1 2",
    "a word": "yes",
    "single quotes": "{'a':1}",
    "deep": "[" * 100_000 + "]" * 100_000,
}

TABLES = (
    "task_records", "work_items", "lease_ready", "scheduled", "waiting", "outcomes", "checkpoints", "tool_ledger",
    "llm_cache", "approvals", "events",
)  # fmt: skip


def written(conn: psycopg.Connection[Any]) -> list[int]:
    return [engine.count(conn, table) for table in TABLES]


@pytest.mark.parametrize("field", ["task_id", "kind", "title", "queue"])
def test_text_that_postgres_cannot_hold_is_refused(runner: Driver, conn: psycopg.Connection[Any], field: str) -> None:
    given: dict[str, Any] = {"task_id": "t", "kind": "k", "title": "t", "payload": "{}", "queue": "q"}
    for text in BAD_TEXT.values():
        with pytest.raises(InvalidValue) as caught:
            runner.run(tasks.submit(**{**given, field: text}))
        assert "NUL" in (caught.value.hint or "")
    assert set(written(conn)) == {0}
    runner.run(tasks.submit(**given))


JSON_ARGUMENTS: dict[str, Callable[[engine.Worker, ClaimedItem, str], Call[Any]]] = {
    "payload": lambda _w, _i, text: tasks.submit("t", "k", "t", text),
    "task payload": lambda _w, _i, text: tasks.create_task("t", "t", payload=text),
    "items": lambda _w, _i, text: tasks.create_task("t", "t", items=text),
    "result": lambda w, i, text: items.complete(w.worker_id, [(i.item_id, i.token, text)]),
    "error": lambda w, i, text: items.fail(w.fence(i), text),
    "error for good": lambda w, i, text: items.fail(w.fence(i), text, terminal=True),
    "shown": lambda w, i, text: engine.ask(w.fence(i), "sure?", text),
    "new items": lambda w, i, text: items.expand(w.fence(i), text),
    "snapshot": lambda w, i, text: checkpoints.commit_checkpoint(
        engine.checkpoint(item_id=i.item_id, snapshot=text, snapshot_sha256="0"), w.fence(i)
    ),
    "evidence": lambda w, i, text: checkpoints.commit_checkpoint(
        engine.checkpoint(item_id=i.item_id, evidence=text), w.fence(i)
    ),
    "arguments": lambda w, i, text: ledger.ledger_begin(
        engine.tool_call(arguments=text, item_id=i.item_id), w.fence(i), w.worker_id,
        on_doubt="fail", produces="[]", expires_s=1,
    ),
    "produces": lambda w, i, text: ledger.ledger_begin(
        engine.tool_call(item_id=i.item_id), w.fence(i), w.worker_id, on_doubt="fail", produces=text, expires_s=1
    ),
    "resumed from": lambda w, i, text: checkpoints.note_resume(w.fence(i), text),
}  # fmt: skip


@pytest.mark.parametrize("argument", JSON_ARGUMENTS)
def test_text_that_is_no_json_is_refused_and_the_lease_is_kept(
    runner: Driver, conn: psycopg.Connection[Any], argument: str
) -> None:
    engine.submit(runner)
    worker = engine.register(runner)
    (item,) = worker.claim()
    before = written(conn)
    for name, text in BAD_JSON.items():
        with pytest.raises(InvalidValue):
            runner.run(JSON_ARGUMENTS[argument](worker, item, text))
        assert written(conn) == before, name
    assert worker.complete(item) == frozenset()


@pytest.mark.parametrize("bad", ["NaN", "cut off"])
def test_a_result_or_output_that_is_no_json_leaves_the_record_begun(runner: Driver, bad: str) -> None:
    engine.submit(runner)
    worker = engine.register(runner, role="guest")
    begun = runner.run(
        ledger.ledger_begin(engine.tool_call(), None, worker.worker_id, on_doubt="fail", produces="[]", expires_s=60)
    )
    assert begun.call_token is not None
    with pytest.raises(InvalidValue):
        runner.run(
            ledger.ledger_finish(
                "call-1", begun.call_token, None, worker.worker_id, result=BAD_JSON[bad], exit_code=0, error=None
            )
        )
    assert [entry.state for entry in runner.run(ledger.ledger_history("task-1"))] == ["begun"]
    prompt = cache.PromptIdentity("prompt-1", "task-1", "plan", "model", "0" * 64, "p")
    asked = runner.run(cache.cache_begin(prompt, None, worker.worker_id, 60))
    assert asked.call_token is not None
    with pytest.raises(InvalidValue):
        runner.run(cache.cache_finish(prompt, asked.call_token, None, worker.worker_id, BAD_JSON[bad]))
    assert runner.run(cache.cache_begin(prompt, None, worker.worker_id, 60)).verdict == "busy"


UNFIT: tuple[Call[Any], ...] = (
    tasks.submit("", "k", "t", "{}"),
    tasks.submit("t" * 256, "k", "t", "{}"),
    tasks.submit("t", "k", "t", "{}", max_attempts=40_000),
    tasks.submit("t", "k", "t", "{}", priority=2**31),
    tasks.submit("t", "k", "t", "{}", delay_s=float("nan")),
    tasks.submit("t", "k", "t", "{}", delay_s=float("inf")),
    tasks.submit("t", "k", "t", "{}", timeout_s=1e300),
    tasks.submit("t", secrets.token_hex(20_000), "t", "{}"),
    tasks.create_task("t", "t", items='{"key":"a"}'),
    tasks.create_task("t", "t", items='[{"key":"a"}]'),
    tasks.create_task("t", "t", items='[{"key":"a","kind":"k","depends_on":{"b":1}}]'),
    tasks.create_task("t", "t", items='[{"key":"a","kind":"k","max_attempts":"many"}]'),
    tasks.create_task("t", "t", items='["a"]'),
    items.complete(2**63, []),
)


def test_numbers_and_names_that_do_not_fit_are_refused(runner: Driver, conn: psycopg.Connection[Any]) -> None:
    for call in UNFIT:
        with pytest.raises(InvalidValue):
            runner.run(call)
    assert set(written(conn)) == {0}


EXACT: tuple[Any, ...] = (
    2**53 + 1, -(2**63), 10**400, 0.1, 1e-320, 1.7976931348623157e308, "", "\u2028\u2029", "🎉", "\\u0000", "\ufffe",
    [], {}, {"": {"": []}}, [[[[None, True, False]]]], {"b": 1, "a": {"\u00e9": "e\u0301"}}, "x" * 100_000,
)  # fmt: skip


def test_what_can_be_held_comes_back_exactly_through_every_place(runner: Driver) -> None:
    worker = engine.register(runner)
    for n, value in enumerate(EXACT):
        text = canonical_text(value)
        runner.run(tasks.submit(f"task-{n}", "shell", "t", text))
        (item,) = worker.claim()
        assert item.payload == value
        new = engine.checkpoint(item.task_id, item.item_id, snapshot=text)
        runner.run(checkpoints.commit_checkpoint(new, worker.fence(item)))
        row = runner.run(checkpoints.checkpoint_of(item.task_id, 1))
        assert row is not None
        assert row.snapshot_text == text, "byte for byte what was hashed"
        worker.complete(item, result=text)
        assert runner.run(tasks.task_progress(item.task_id)).result == value


def test_a_payload_written_by_somebody_else_that_cannot_be_read_strands_no_other_item(
    runner: Driver, conn: psycopg.Connection[Any]
) -> None:
    for n in range(3):
        engine.submit(runner, f"task-{n}")
    conn.execute("UPDATE agentos.work_items SET payload = '[1e999]' WHERE task_id = 'task-1'")
    worker = engine.register(runner)
    claimed = {item.task_id: item for item in worker.claim(3)}
    assert claimed["task-0"].payload == {}
    assert isinstance(claimed["task-1"].payload, InvalidValue)
    for item in claimed.values():
        runner.run(items.fail(worker.fence(item), engine.ERROR, terminal=True))


class Loop(list[Any]):
    """A list that holds itself."""


def cycle() -> Any:
    loop = Loop()
    loop.append(loop)
    return loop


NOT_JSON: dict[str, Any] = {
    "NUL": "\x00",
    "NUL in a key": {"\x00": 1},
    "surrogate": ["\ud800"],
    "NaN": float("nan"),
    "Infinity": [float("inf")],
    "1e400": json.loads("1e400"),
    "bytes": b"x",
    "set": {1},
    "a tuple as key": {(1,): 2},
    "a number as key": {1: 2},
    "object": object(),
    "cycle": cycle(),
}


@pytest.mark.parametrize("name", NOT_JSON)
def test_values_that_are_not_json_never_become_a_call(name: str) -> None:
    with pytest.raises(InvalidValue):
        canonical(NOT_JSON[name])


def test_values_that_are_too_large_never_become_a_call() -> None:
    with pytest.raises(ValueTooLarge):
        canonical({"x": "y" * 9 * 2**20})
