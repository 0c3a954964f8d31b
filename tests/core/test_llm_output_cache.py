"""LLMOutputCache: generated once across threads and processes, expired by the clock, never an error kept."""

import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.core.processes import bury, killed, start

from agentos.core.idempotency import LLMOutputCache
from agentos.core.llm import Completion
from agentos.core.task import TaskManager
from agentos.store.connect import Database
from agentos.store.errors import InvalidInput, InvalidValue, UnknownTask
from agentos.testing.clock import Clock

GENERATE = """
import sys, time
from agentos.core.idempotency import LLMOutputCache
def generate():
    with open(sys.argv[1], "a") as log:
        log.write("generated\\n")
    time.sleep(float(sys.argv[2]))
    return {"by": "a process"}
print(LLMOutputCache().get_or_generate("plan", "p", "m", "task-123", generate))
"""


@pytest.fixture
def cache(database_dsn: str) -> LLMOutputCache:
    TaskManager().create_task("a task", task_id="task-123")
    return LLMOutputCache()


def ask(cache: LLMOutputCache, generate: Any = lambda: "text", prompt: Any = "p", **more: Any) -> Any:
    return cache.get_or_generate("plan", prompt, "m", "task-123", generate, **more)


def never() -> Any:
    raise AssertionError("generated although it was cached")


@pytest.mark.parametrize("output", ["text", None, False, 0, [], {"a": [1, {"b": None}]}, 2**60])
def test_any_json_value_is_an_output(cache: LLMOutputCache, output: Any) -> None:
    assert ask(cache, lambda: output) == output
    assert ask(cache, never) == output


def test_the_first_answer_and_the_cached_one_are_the_same_value(cache: LLMOutputCache) -> None:
    assert ask(cache, lambda: ("a", 1.0)) == ask(cache, never) == ["a", 1]


def test_a_completion_is_its_text_and_its_tokens_are_kept(cache: LLMOutputCache, conn: psycopg.Connection[Any]) -> None:
    assert ask(cache, lambda: Completion("hello", "m", 7, 3, "stop")) == "hello"
    assert ask(cache, never) == "hello"
    row = conn.execute("SELECT prompt_tokens, completion_tokens, hits FROM agentos.llm_cache").fetchone()
    assert row == (7, 3, 1)


def test_what_raised_is_never_cached(cache: LLMOutputCache) -> None:
    def breaks() -> None:
        raise OSError("no model")

    with pytest.raises(OSError, match="no model"):
        ask(cache, breaks)
    assert ask(cache) == "text"


def test_an_output_that_cannot_be_stored_is_refused_and_not_kept(cache: LLMOutputCache) -> None:
    with pytest.raises(InvalidValue):
        ask(cache, lambda: "a\x00b")
    assert ask(cache) == "text"


def test_an_unknown_task_is_refused_before_generating(cache: LLMOutputCache) -> None:
    with pytest.raises(UnknownTask, match="create_task"):
        cache.get_or_generate("plan", "p", "m", "task-999", never)


def test_a_sample_is_another_output(cache: LLMOutputCache) -> None:
    assert [ask(cache, lambda n=n: n, sample=n) for n in (1, 2)] == [1, 2]
    assert ask(cache, never, sample=1) == 1


def test_invalidate_forgets_one_output(cache: LLMOutputCache) -> None:
    ask(cache)
    ask(cache, prompt="other")
    assert cache.invalidate("plan", "p", "m", "task-123") is True
    assert cache.invalidate("plan", "p", "m", "task-123") is False
    assert ask(cache, lambda: "new") == "new"
    assert ask(cache, never, prompt="other") == "text"


def test_threads_that_ask_at_once_generate_once(cache: LLMOutputCache) -> None:
    inside, go = threading.Event(), threading.Event()
    calls: list[int] = []
    outputs: list[Any] = []

    def generate() -> str:
        calls.append(1)
        inside.set()
        go.wait(10)
        return "text"

    threads = [threading.Thread(target=lambda: outputs.append(ask(cache, generate))) for _ in range(6)]
    for thread in threads:
        thread.start()
    assert inside.wait(10)
    go.set()
    for thread in threads:
        thread.join(10)
    assert (calls, outputs) == ([1], ["text"] * 6)
    stats = cache.get_stats()
    assert (stats["hits"], stats["misses"]) == (5, 1)


def test_processes_that_ask_at_once_generate_once(cache: LLMOutputCache, tmp_path: Path) -> None:
    log = tmp_path / "log"
    processes = [start(GENERATE, log, 0.2) for _ in range(3)]
    assert {process.communicate(timeout=60)[0] for process in processes} == {"{'by': 'a process'}\n"}
    assert log.read_text() == "generated\n"


def test_a_generator_that_died_is_taken_over(cache: LLMOutputCache, db: Database, tmp_path: Path) -> None:
    died = start(GENERATE, tmp_path / "log", 60)
    killed(died, tmp_path / "log")
    bury(db, died.pid)
    assert ask(cache) == "text"


def test_an_output_expires_after_7_days(cache: LLMOutputCache, clock: Clock) -> None:
    ask(cache)
    clock.advance(6.9 * 86400)
    assert ask(cache, never) == "text"
    clock.advance(0.2 * 86400)
    assert ask(cache, lambda: "later") == "later"
    brief = LLMOutputCache(expires_in_seconds=60)
    ask(brief, prompt="brief")
    ask(cache, prompt="briefer", expires_in_seconds=30)
    clock.advance(61)
    assert [ask(cache, lambda: "new", prompt=prompt) for prompt in ("brief", "briefer")] == ["new", "new"]


def test_the_figures_are_this_instances_since_it_was_made_or_reset(cache: LLMOutputCache) -> None:
    assert cache.get_stats() == {"hits": 0, "misses": 0, "total_requests": 0, "hit_rate": 0.0}
    for _ in range(4):
        ask(cache)
    assert cache.get_stats() == {"hits": 3, "misses": 1, "total_requests": 4, "hit_rate": 0.75}
    cache.reset_stats()
    assert cache.get_stats()["hit_rate"] == 0.0


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), True, "7"])
def test_a_duration_that_makes_no_sense_is_refused(cache: LLMOutputCache, seconds: Any) -> None:
    with pytest.raises(InvalidInput, match="expires_in_seconds"):
        LLMOutputCache(expires_in_seconds=seconds)
    with pytest.raises(InvalidInput, match="expires_in_seconds"):
        ask(cache, never, expires_in_seconds=seconds)
