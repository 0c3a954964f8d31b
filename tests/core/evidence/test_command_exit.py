"""COMMAND_EXIT against what the ledger recorded, and against running the command again where evidence asks for it."""

from pathlib import Path
from typing import Any

import pytest
from tests.core.evidence.worlds import MakeWorld

from agentos.core.evidence import Evidence, RecordedExit, check


def claim(exit_code: int = 0, **metadata: Any) -> Evidence:
    return Evidence("command_exit", "", {"exit_code": exit_code}, metadata)


class Ledger:
    """Three calls, the newest last; keeps what was asked."""

    calls = (RecordedExit(0, "make"), RecordedExit(2, "make test"), RecordedExit(None, "look", "search"))

    def __init__(self, newest: int = 3) -> None:
        self.known = self.calls[:newest]

    def __call__(self, command: str | None) -> RecordedExit | None:
        fitting = [call for call in self.known if command in (None, call.command)]
        return fitting[-1] if fitting else None


@pytest.mark.parametrize(("exit_code", "command"), [(0, "make"), (2, "make test")])
def test_it_holds_when_the_recorded_exit_code_is_the_expected_one(
    make_world: MakeWorld, exit_code: int, command: str
) -> None:
    assert check(claim(exit_code, command=command), make_world(recorded_exit_code=Ledger())).holds


def test_without_a_command_the_newest_call_counts(make_world: MakeWorld) -> None:
    world = make_world(recorded_exit_code=Ledger(newest=2))
    assert check(claim(2), world).holds
    assert check(claim(0), world).reason == "the recorded call 'make test' exited with 2, expected 0"


@pytest.mark.parametrize(
    ("evidence", "newest", "reason"),
    [
        (claim(0, command="make test"), 3, "exited with 2, expected 0"),
        (claim(0, command="make install"), 3, "nothing recorded"),
        (claim(0), 0, "nothing recorded"),
        (claim(0, command="look"), 3, "has no exit code"),
        (claim(0), 3, "has no exit code"),
    ],
)
def test_it_fails_with_the_reason(make_world: MakeWorld, evidence: Evidence, newest: int, reason: str) -> None:
    verdict = check(evidence, make_world(recorded_exit_code=Ledger(newest)))
    assert not verdict.holds
    assert reason in verdict.reason


def test_a_command_is_not_run_again_unless_the_evidence_asks(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world(may_rerun=True)
    assert not check(claim(0, command="touch ran"), world).holds
    assert not check(claim(0, command="touch ran", rerun=False), world).holds
    assert not (tmp_path / "ran").exists()


def test_rerun_runs_the_command_in_the_current_directory(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world(may_rerun=True)
    assert check(claim(3, command="touch ran; exit 3", rerun=True), world).holds
    assert (tmp_path / "ran").exists()
    assert "exited with 1, expected 0" in check(claim(0, command="false", rerun=True), world).reason


def test_rerun_is_bounded_in_time(make_world: MakeWorld) -> None:
    verdict = check(claim(0, command="sleep 30", rerun=True, timeout_s=0.1), make_world(may_rerun=True))
    assert not verdict.holds
    assert "longer than 0.1 s" in verdict.reason


def test_rerun_is_refused_where_commands_may_not_run(make_world: MakeWorld, tmp_path: Path) -> None:
    verdict = check(claim(0, command="touch ran", rerun=True), make_world())
    assert not verdict.holds
    assert "may not" in verdict.reason
    assert not (tmp_path / "ran").exists()
