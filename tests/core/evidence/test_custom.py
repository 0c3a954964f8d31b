"""Evidence types of the app's own: whatever their check does, the answer is a verdict."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.core.evidence.worlds import MakeWorld

from agentos.core.evidence import Evidence, EvidencePack, LocalWorld, Verdict, check, check_pack, custom, stamp
from agentos.core.evidence.claim import custom_types
from agentos.core.evidence.world import UrlRules
from agentos.store.canonical import canonical, loads
from agentos.store.errors import ConfigInvalid, InvalidEvidence

EXPECTED = "it returns True, False or (bool, reason)"


@pytest.fixture(autouse=True)
def own_types(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(custom, "_checks", {})
    yield
    custom_types.clear()


@pytest.fixture
def world(make_world: MakeWorld) -> LocalWorld:
    return make_world(url_rules=lambda: UrlRules((), 0.5, 0))


def checked(world: LocalWorld, answer: Callable[[Evidence], Any]) -> Verdict:
    custom.register("merged", answer)
    return check(Evidence("merged", "the request", {"number": 7}, {"of": "x", "command": 3}), world)


class Spoken(Exception):
    def __str__(self) -> str:
        raise ValueError


async def awaited(evidence: Evidence) -> bool:
    await asyncio.sleep(0)
    return bool(evidence.expected["number"] == 7)


def raises(_: Evidence) -> bool:
    raise RuntimeError("no \0 network \ud800")


def speechless(_: Evidence) -> bool:
    raise Spoken


@pytest.mark.parametrize(("answer", "holds", "reason"), [
    (lambda each: each.expected == {"number": 7}, True, "the check of merged evidence says yes"),
    (awaited, True, "the check of merged evidence says yes"),
    (lambda _: (True, "merged by ann"), True, "merged by ann"),
    (lambda _: False, False, "the check of merged evidence says no"),
    (lambda _: (False, "it is open"), False, "it is open"),
    (raises, False, "the check of merged evidence raised RuntimeError: no \\0 network \\ud800"),
    (speechless, False, "the check of merged evidence raised Spoken: its text cannot be had: ValueError"),
    (lambda _: None, False, f"the check of merged evidence answered None: {EXPECTED}"),
    (lambda _: ("yes", "no"), False, f"the check of merged evidence answered ('yes', 'no'): {EXPECTED}"),
])  # fmt: skip
def test_every_answer_is_a_verdict_with_its_reason(
    world: LocalWorld, answer: Callable[[Evidence], Any], holds: bool, reason: str
) -> None:
    verdict = checked(world, answer)
    assert (verdict.holds, verdict.reason) == (holds, reason)
    canonical(verdict.as_json())


def test_a_check_that_does_not_answer_does_not_hold_and_is_left_alone(world: LocalWorld) -> None:
    answered = threading.Event()
    verdict = checked(world, lambda _: answered.wait(60))
    answered.set()
    assert not verdict.holds
    assert verdict.reason == "merged evidence could not be checked within 0.5 s (AGENTOS_EVIDENCE_TIMEOUT_S)"
    assert 0.5 <= verdict.took_s < 30


def test_what_another_program_committed_is_a_claim_that_nothing_here_checks(world: LocalWorld) -> None:
    custom.register("merged", lambda _: True)
    stored = loads(canonical(EvidencePack([stamp(Evidence("merged", "", {}))]).as_json()))
    custom._checks.clear()
    custom_types.clear()
    with pytest.raises(InvalidEvidence, match="'merged' is no evidence type"):
        Evidence("merged", "", {})
    with pytest.raises(InvalidEvidence):
        EvidencePack.from_json(stored)
    verdict = check_pack(EvidencePack.from_json(stored, stored=True), world)
    assert not verdict.holds
    assert 'nothing here checks merged evidence: register it with @app.evidence("merged")' in verdict.reason


def test_a_stored_claim_of_a_built_in_type_is_as_strict_as_ever() -> None:
    with pytest.raises(InvalidEvidence, match="has no 'exit_code'"):
        Evidence.from_json({"evidence_type": "command_exit", "expected": {}}, stored=True)


@pytest.mark.parametrize("name", ["", "Merged", "file_sha256", "db_row", "a b", "7up", "x" * 64, None])
def test_a_name_that_is_none_or_built_in_is_refused(name: Any) -> None:
    with pytest.raises(ConfigInvalid, match="cannot name an evidence type"):
        custom.register(name, lambda _: True)


def test_a_name_belongs_to_one_function_and_a_module_may_be_imported_again() -> None:
    custom.register("merged", awaited)
    custom.register("merged", awaited)
    with pytest.raises(ConfigInvalid, match=r"is checked by .*awaited"):
        custom.register("merged", raises)
