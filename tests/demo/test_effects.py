"""The effects log tells on us: what is lost and what happened twice is counted from it alone."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.demo.site import FIRST

from agentos.core.app import NOT_DONE, Done
from agentos.core.app import ToolCall as Call
from agentos.demo import effects
from agentos.demo.tools import look_into_log

WROTE: dict[str, Any] = {"item": "pip", "command": "write artifacts/pip.json"}


def log(folder: Path, *calls: Call, command: str = "write artifacts/pip.json") -> tuple[effects.Effect, ...]:
    for call in calls:
        told = {**WROTE, "command": command}
        effects.append(str(folder), call, "write_artifact", told, time.time(), {"exit_code": 0})
    return effects.read(folder)


def count(seen: tuple[effects.Effect, ...], *, keys: tuple[str, ...] = ()) -> effects.Tally:
    return effects.tally(seen, expected=["write artifacts/pip.json"], recorded_keys=keys)


def test_one_line_for_one_effect_is_as_it_should_be(tmp_path: Path) -> None:
    tally = count(log(tmp_path, FIRST), keys=("key-1",))
    assert tally == effects.Tally(effects=1, repaired=0, lost=(), duplicated=())


def test_the_same_key_twice_is_a_duplicate(tmp_path: Path) -> None:
    assert count(log(tmp_path, FIRST, FIRST)).duplicated == ("write artifacts/pip.json",)


def test_the_same_effect_under_another_key_is_a_duplicate(tmp_path: Path) -> None:
    assert count(log(tmp_path, FIRST, replace(FIRST, idempotency_key="key-2"))).duplicated


def test_a_repair_under_the_same_key_is_counted_apart(tmp_path: Path) -> None:
    tally = count(log(tmp_path, FIRST, replace(FIRST, repair=True, execution=2)), keys=("key-1",))
    assert (tally.effects, tally.repaired, tally.duplicated, tally.lost) == (1, 1, (), ())


def test_what_had_to_be_done_and_was_not_is_lost(tmp_path: Path) -> None:
    assert count(()).lost == ("write artifacts/pip.json",)


def test_a_call_that_the_database_calls_finished_and_the_log_does_not_know_is_lost(tmp_path: Path) -> None:
    assert count(log(tmp_path, FIRST), keys=("key-1", "key-9")).lost == ("call key-9",)


def test_a_torn_last_line_is_no_effect(tmp_path: Path) -> None:
    log(tmp_path, FIRST)
    with (tmp_path / effects.NAME).open("a") as file:
        file.write('{"idempotency_key": "key-2", "to')
    assert [each.idempotency_key for each in effects.read(tmp_path)] == ["key-1"]


def test_a_log_that_nobody_has_written_is_empty(tmp_path: Path) -> None:
    assert effects.read(tmp_path) == ()


def test_the_probe_finds_what_was_done_with_its_result(tmp_path: Path) -> None:
    log(tmp_path, FIRST)
    assert look_into_log(FIRST, {"folder": str(tmp_path)}) == Done({"exit_code": 0})


def test_the_probe_says_what_was_not_done(tmp_path: Path) -> None:
    log(tmp_path, FIRST)
    assert look_into_log(replace(FIRST, idempotency_key="key-2"), {"folder": str(tmp_path)}) is NOT_DONE
