"""Content is sealed by a codec before it is stored, and opened wherever it is read."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.contents import tables_with
from tests.vault import KEY, OTHER, Vault, vault

from agentos.core.app import App, TaskContext, TaskHandle
from agentos.core.runner import TaskRunner
from agentos.core.task import TaskManager
from agentos.core.worker_pool import LeaseManager
from agentos.store import codec
from agentos.store.calls import tasks, timeline
from agentos.store.calls.blobs import task_bytes
from agentos.store.errors import CodecFailed, ConfigInvalid, ContentSealed, InvalidValue
from agentos.testing import CRASH_TIMES, Pool, crash_at

SECRET = "rosebud"
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _as_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "_codecs", None)
    monkeypatch.setattr(codec, "_shows", False)


def agent(pool: Pool, *codecs: codec.Codec) -> App:
    app = App(dsn=pool.dsn, codec=codecs or None)
    app.tool("search", on_doubt="retry")(lambda arguments: {"found": SECRET, "asked": arguments})

    @app.task("part")
    async def part(ctx: TaskContext, word: str) -> str:
        return word

    @app.task("agent")
    async def agent(ctx: TaskContext, word: str) -> Any:
        found = await ctx.tool("search", {"page": 1}, key="search")
        prompt = [{"role": "user", "content": f"{word} " * 500}]
        plan = await ctx.llm("plan", prompt=prompt, model="m", generate=lambda _: f"say {word}")
        if ctx.snapshot is None:
            await ctx.checkpoint("iteration_end", {"word": word, "long": [f"{word} {n} " * 100 for n in range(200)]})
        child = await ctx.spawn("part", {"word": word})
        kids = await ctx.gather(child)
        sent = await ctx.wait_for("word")
        answer = await ctx.approval("publish?", shown={"text": word})
        return {"found": found, "plan": plan, "kids": kids, "sent": sent, "by": answer.by}

    return app


RESULT = {
    "found": {"found": SECRET, "asked": {"page": 1}},
    "plan": f"say {SECRET}",
    "kids": [SECRET],
    "sent": {"word": SECRET},
    "by": "ann",
}


def run(app: App, pool: Pool) -> TaskHandle:
    handle = app.submit("agent", {"word": SECRET})
    pool.drain(app)
    handle.signal("word", {"word": SECRET})
    pool.drain(app)
    assert handle.questions()[0].shown == {"text": SECRET}
    handle.answer(by="ann")
    pool.drain(app)
    return handle


def found_in(pool: Pool) -> set[str]:
    with pool.database.connection() as conn:
        return tables_with(conn, SECRET)


def test_no_table_holds_any_of_it_and_every_reader_does(agentos_pool: Pool) -> None:
    app = agent(agentos_pool, vault)
    handle = run(app, agentos_pool)
    assert found_in(agentos_pool) == set()
    assert handle.result(0) == RESULT
    (call,) = handle.model_calls()
    assert (call.request, call.output) == ([{"role": "user", "content": f"{SECRET} " * 500}], f"say {SECRET}")
    (row,) = agentos_pool.database.run(tasks.task_items(handle.task_id))
    assert (row.payload, row.result) == ({"word": SECRET}, RESULT)
    assert {each.what: each.count for each in agentos_pool.database.run(task_bytes(handle.task_id))}["parts"] > 100


def test_without_a_codec_the_same_task_leaves_it_readable(agentos_pool: Pool) -> None:
    run(agent(agentos_pool), agentos_pool)
    assert {"work_items", "outcomes", "checkpoints", "blobs", "tool_ledger", "llm_cache", "signals", "approvals"} <= (
        found_in(agentos_pool)
    )


def test_many_items_of_every_way_to_submit_are_sealed(agentos_pool: Pool) -> None:
    app = agent(agentos_pool, vault)

    @app.task("parts")
    async def parts(ctx: TaskContext, word: str) -> int:
        return await ctx.expand([{"key": f"k{n}", "kind": "part", "payload": {"word": word}} for n in range(3)])

    handles = app.submit_many("part", [{"word": SECRET}] * 3)
    grown = agentos_pool.database.run(
        tasks.create_task("grown", "grown", payload=f'{{"word": "{SECRET}"}}', items="[]")
    )
    assert grown == 0
    item = ("one", "part", f'{{"word": "{SECRET}"}}', None, None, None, None)
    agentos_pool.database.run(tasks.add_items("grown", [item]))
    expands = app.submit("parts", {"word": SECRET})
    agentos_pool.drain(app)
    assert [each.result(0) for each in handles] == [SECRET] * 3
    assert app.handle("grown").result(0) == {"one": SECRET}
    assert expands.status() == "completed"
    assert found_in(agentos_pool) == set()


def test_a_fork_and_a_stub_are_sealed_and_go_on(agentos_pool: Pool) -> None:
    app = agent(agentos_pool, vault)
    handle = run(app, agentos_pool)
    fork = app.handle(handle.fork(1).task_id)
    stubbed = app.handle(handle.fork(0, stub={"search": {"found": f"no {SECRET}"}}).task_id)
    agentos_pool.drain(app, skip_waits=True)
    assert found_in(agentos_pool) == set()
    assert (fork.status(), stubbed.status()) == ("completed", "completed")


def test_a_worker_without_the_codec_puts_the_item_off_and_charges_nothing(
    agentos_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = agent(agentos_pool, vault).submit("part", {"word": SECRET})
    monkeypatch.setattr(codec, "_codecs", ())
    agentos_pool.drain(agent(agentos_pool))
    place = "SELECT place, failures, crashes FROM agentos.task_items"
    assert agentos_pool.rows(place) == [("scheduled", 0, 0)]
    assert "put_off" in [event.event for event in agentos_pool.database.run(timeline.task_events(handle.task_id))]
    (found,) = [each.data for each in agentos_pool.database.run(timeline.findings()) if each.finding == "put_off"]
    assert (found["items"], found["task_id"]) == (1, handle.task_id)
    assert "vault-1" in found["error"]
    monkeypatch.setattr(codec, "_codecs", None)
    agentos_pool.drain(agent(agentos_pool, vault), skip_waits=True)
    assert handle.result(0) == SECRET
    assert "put_off" not in {each.finding for each in agentos_pool.database.run(timeline.findings())}


def test_a_runner_that_meets_sealed_content_in_a_running_item_gives_it_back_and_charges_nothing(
    agentos_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    TaskManager().create_task("a title", task_id="t", items=[{"kind": "shell", "payload": {"command": "true"}}])

    def sealed(*_: object) -> None:
        raise ContentSealed("what it reads is sealed by vault-1", hint="give this process its key")

    runner = TaskRunner()
    monkeypatch.setattr(runner, "_execute_single_work_item", sealed)
    with pytest.raises(ContentSealed):
        runner.run_task("t")
    place = "SELECT place, attempt, failures, crashes FROM agentos.task_items"
    assert agentos_pool.rows(place) == [("ready", 1, 0, 0)]
    assert TaskRunner().run_task("t").completed


@pytest.mark.parametrize("when", CRASH_TIMES)
def test_who_dies_putting_it_off_leaves_it_held_or_scheduled(
    agentos_pool: Pool, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    handle = agent(agentos_pool, vault).submit("part", {"word": SECRET})
    monkeypatch.setattr(codec, "_codecs", ())
    with crash_at(f"{when}:put_off"):
        assert agentos_pool.drain(agent(agentos_pool)).killed
    monkeypatch.setattr(codec, "_codecs", None)
    agentos_pool.drain(agent(agentos_pool, vault), skip_waits=True)
    assert handle.result(0) == SECRET


def test_a_lease_manager_without_the_codec_is_told_and_holds_nothing(
    agentos_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = agent(agentos_pool, vault).submit("part", {"word": SECRET})
    monkeypatch.setattr(codec, "_codecs", ())
    with agentos_pool.database.connection() as conn, pytest.raises(ContentSealed, match="vault-1"):
        LeaseManager(conn, worker_id="script").acquire_lease(lease_duration_seconds=60)
    assert agentos_pool.rows("SELECT task_id, place FROM agentos.task_items") == [(handle.task_id, "ready")]


def test_a_new_key_seals_and_the_former_one_still_opens(agentos_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    former = agent(agentos_pool, vault).submit("part", {"word": SECRET})
    monkeypatch.setattr(codec, "_codecs", None)
    app = agent(agentos_pool, Vault("vault-2", OTHER), vault)
    fresh = app.submit("part", {"word": SECRET})
    agentos_pool.drain(app)
    assert (former.result(0), fresh.result(0)) == (SECRET, SECRET)
    by = [
        row[0]
        for row in agentos_pool.rows("SELECT payload #>> '{$sealed,by}' FROM agentos.work_items ORDER BY item_id")
    ]
    assert by == ["vault-1", "vault-2"]


def test_the_wrong_key_opens_nothing_and_says_so(agentos_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = agent(agentos_pool, vault).submit("part", {"word": SECRET})
    monkeypatch.setattr(codec, "_codecs", (Vault("vault-1", OTHER),))
    with pytest.raises(ContentSealed, match="is it the key that sealed it"):
        agentos_pool.database.run(tasks.task_items(handle.task_id))


def test_a_codec_that_cannot_seal_stops_the_submit(agentos_pool: Pool) -> None:
    class Broken(Vault):
        def encode(self, content: bytes, /) -> bytes:
            raise OSError("the key store does not answer")

    app = agent(agentos_pool, Broken("broken", KEY))
    with pytest.raises(CodecFailed, match="key store"):
        app.submit("part", {"word": SECRET})
    assert agentos_pool.rows("SELECT 1 FROM agentos.task_records") == []


def test_what_is_no_codec_or_a_second_one_is_refused_when_the_app_is_made() -> None:
    with pytest.raises(ConfigInvalid, match="is no codec"):
        App(codec=object())  # type: ignore[arg-type]  # that is what is tested
    with pytest.raises(ConfigInvalid, match="two of one name"):
        App(codec=[vault, Vault("vault-1", OTHER)])
    App(codec=vault)
    App(codec=vault)
    with pytest.raises(ConfigInvalid, match="seals with 'vault-1' already"):
        App(codec=Vault("vault-2", OTHER))


def test_a_value_that_pretends_to_be_sealed_is_refused(agentos_pool: Pool) -> None:
    handle = agent(agentos_pool).submit("agent", {"word": "x"})
    with pytest.raises(InvalidValue, match="sealed"):
        handle.signal("word", {"$sealed": {"by": "zlib", "data": "eA=="}})
    handle.signal("word", {"nested": {"$sealed": "only a word"}})


def test_compression_makes_large_content_small(agentos_pool: Pool) -> None:
    app = App(dsn=agentos_pool.dsn, codec=codec.Zlib())

    @app.task("echo")
    async def echo(ctx: TaskContext, text: str) -> str:
        return text

    handle = app.submit("echo", {"text": "again " * 10_000})
    agentos_pool.drain(app)
    assert handle.result(0) == "again " * 10_000
    ((size,),) = agentos_pool.rows("SELECT octet_length(payload::text) FROM agentos.work_items")
    assert size < 1000


@pytest.mark.parametrize("named", [True, False], ids=["named", "not named"])
def test_a_command_opens_what_the_codec_of_the_settings_sealed(agentos_pool: Pool, named: bool) -> None:
    app = agent(agentos_pool, vault)
    handle = app.submit("part", {"word": SECRET})
    agentos_pool.drain(app)
    env = {**os.environ, "AGENTOS_DSN": agentos_pool.dsn, **({"AGENTOS_CODEC": "tests.vault:vault"} if named else {})}
    show = [sys.executable, "-m", "agentos.cli", "show", handle.task_id, "--json"]
    shown = subprocess.run(show, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    assert (SECRET in shown, "sealed by vault-1" in shown) == (named, not named)
