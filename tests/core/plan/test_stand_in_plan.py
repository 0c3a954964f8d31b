"""The stand-in plan is real work that any worker can do, and goes the way of a model's plan."""

import json

import pytest

from agentos.core.plan import parse_model_plan, planning_prompt, stand_in_plan, stand_in_plan_json
from agentos.core.shell import run_command

NASTY = 'it\'s $(touch /tmp/x) `x` "q" {b} %s \\ \n- ü \x1b[31m'


def test_it_is_three_commands_in_a_row_with_evidence() -> None:
    plan = stand_in_plan("Recoverable Task", {"topic": "x"})
    assert plan.title == "Recoverable Task"
    assert [(item.key, item.kind, item.depends_on) for item in plan.items] == [
        ("inspect", "shell", ()),
        ("compute", "shell", ("inspect",)),
        ("verify", "shell", ("compute",)),
    ]
    for item in plan.items:
        (evidence,) = item.evidence
        assert evidence.evidence_type == "command_exit"
        assert evidence.expected == {"exit_code": 0}
        assert evidence.metadata == {"command": item.payload["command"]}


def test_it_is_the_same_for_the_same_task_and_another_for_another_input() -> None:
    assert stand_in_plan("t", {"a": 1}) == stand_in_plan("t", {"a": 1})
    assert stand_in_plan("t", {"a": 1}) != stand_in_plan("t", {"a": 2})


@pytest.mark.parametrize("title", ["Recoverable Task", NASTY, "-n", "x" * 600])
def test_its_commands_run_and_say_what_they_did(title: str) -> None:
    results = [run_command(item.payload["command"], timeout_s=20) for item in stand_in_plan(title, {}).items]
    assert [(result.exit_code, result.stderr) for result in results] == [(0, "")] * 3
    assert results[0].stdout.startswith("task: ")
    assert "the sum of 1 to 1000 is 500500" in results[1].stdout
    assert results[2].stdout.startswith("verified for input ")


def test_a_title_is_data_and_never_a_command() -> None:
    result = run_command(stand_in_plan(NASTY, {}).items[0].payload["command"])
    assert result.stdout.splitlines()[0] == 'task: it\'s $(touch /tmp/x) `x` "q" {b} %s \\ - ü [31m'


def test_the_answer_to_the_planning_prompt_is_the_stand_in_plan() -> None:
    answer = stand_in_plan_json(planning_prompt("Title", {"a": 1}))
    assert json.loads(answer)["title"] == "Title"
    assert parse_model_plan(answer) == stand_in_plan("Title", {"a": 1})


@pytest.mark.parametrize("prompt", ["", "Plan: anything", "Task: do it", 'Task: "x" y', "Task: 1", "\ud800 \x00"])
def test_any_prompt_gets_a_plan(prompt: str) -> None:
    assert len(parse_model_plan(stand_in_plan_json(prompt)).items) == 3
