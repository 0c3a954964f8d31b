"""A model's plan: found in its answer, held to the schema, refused before anything is made of it."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.core.plan import PLAN_SCHEMA, Plan, PlanItem, parse_model_plan, parse_plan, planning_prompt
from agentos.store.errors import InvalidPlan, InvalidValue

ONE = '{"title": "One", "items": [{"key": "a", "command": "ls"}]}'
PLAN = Plan("One", (PlanItem("a", "shell", {"command": "ls"}),))


@pytest.mark.parametrize(
    "answer",
    [
        ONE,
        f"\n  {ONE}\n",
        f"```json\n{ONE}\n```",
        f"Here is the plan:\n\n```json\n{ONE}\n```\nIt has one item; `ls` lists.",
        f"```\n{ONE}\n```",
        f"  ```JSON\n  {ONE}\n  ```",
        f"First look:\n```sh\nls\n```\nthen\n```json\n{ONE}\n```",
        f"The plan is {ONE} and that is all.",
    ],
)
def test_the_plan_is_found_in_the_answer(answer: str) -> None:
    assert parse_model_plan(answer) == PLAN


def test_a_fence_inside_a_command_does_not_end_the_plan() -> None:
    document = {"items": [{"key": "a", "command": "cat <<X\n```\nX"}]}
    answer = f"```json\n{json.dumps(document, indent=1)}\n```"
    assert parse_model_plan(answer).items[0].payload["command"] == "cat <<X\n```\nX"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("", "said nothing"),
        ("I cannot plan that.", "It said: I cannot plan that"),
        (f"```json\n{ONE}\n```\nor\n```json\n{ONE}\n```", "2 JSON blocks"),
        ("[1, 2]", "no JSON object"),
        ("```json\n{'items': []}\n```", "model's plan:2: not JSON: a key in double quotes"),
        ('Well:\n{"items": [{"key": "a",\n"comand": "ls"}]}', 'model\'s plan:3: .*did you mean "command"'),
        ('{"items": []}', "from 1 to 10000 items"),
        ('{"items": [{"key": "a", "command": "x", "depends_on": ["b"]}]}', 'no item has the key "b"'),
        ('{"items": [{"key": "a", "command": "x", "depends_on": ["a"]}]}', "is the item itself"),
        ('{"title": "' + "x" * 501 + '", "items": [{"key": "a", "command": "x"}]}', "at most 500 characters"),
        ("{" * 2_000_000, "characters"),
    ],
)
def test_an_answer_without_a_good_plan_is_refused(answer: str, message: str) -> None:
    with pytest.raises(InvalidPlan, match=message):
        parse_model_plan(answer)


def test_the_prompt_names_the_task_its_input_and_the_schema_and_is_stable() -> None:
    prompt = planning_prompt("Audit\nit", {"b": 1, "a": [2]})
    assert prompt == planning_prompt("Audit\nit", {"a": [2], "b": 1})
    lines = prompt.splitlines()
    assert 'Task: "Audit\\nit"' in lines
    assert 'Input: {"a":[2],"b":1}' in lines
    assert json.loads(lines[-1]) == PLAN_SCHEMA
    with pytest.raises(InvalidValue):
        planning_prompt("t", {"x": float("nan")})


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(PLAN_SCHEMA)


ODD = st.sampled_from(
    [None, True, False, 0, 1, -1, 2.5, 1001, "", " ", "a", "b", "5m", "1 h", [], ["a"], [1], {}, {"A": "b"}]
)
CLAIM = st.fixed_dictionaries(
    {"type": st.sampled_from(["COMMAND_EXIT", "command_exit", "Exit", 1]), "expected": st.just({"exit_code": 0})},
    optional={"description": ODD, "metadata": st.sampled_from([{}, {"note": 1}, 1]), "x": ODD},
)
ITEM = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("cwd", "env", "model", "system", "payload", "queue", "timeout", "depends_on", "x"), ODD)
    | {"key": st.sampled_from(["a", "b", "c", "a b", "", 1, "a\n"]), "command": ODD, "prompt": ODD, "kind": ODD}
    | {"retries": ODD, "max_attempts": ODD, "evidence": st.lists(CLAIM, max_size=2)},
)
GOOD = st.fixed_dictionaries(
    {"key": st.sampled_from(["a", "b", "c"]), "command": st.sampled_from(["ls", ["ls"]])},
    optional={
        "cwd": st.just("x"),
        "env": st.just({"A": ""}),
        "timeout": st.sampled_from([1, "5m", 2.5]),
        "retries": st.sampled_from([0, 3.0]),
        "queue": st.just("q"),
        "depends_on": st.sampled_from([[], ["a"], "b"]),
        "evidence": st.lists(CLAIM, max_size=1),
    },
)
DOCUMENT = st.fixed_dictionaries(
    {"items": st.lists(st.one_of(ITEM, GOOD), max_size=3)}, optional={"title": ODD, "queue": ODD, "other": ODD}
)
BESIDE_THE_SCHEMA = (
    "no item has the key",
    "is the item itself",
    "wait for each other",
    "is the key of",
    "evidence ",
    "\\n",
)


@settings(max_examples=400, deadline=None)
@given(DOCUMENT)
def test_the_checks_and_the_schema_agree(document: dict[str, Any]) -> None:
    fits = jsonschema.Draft202012Validator(PLAN_SCHEMA).is_valid(document)
    try:
        parse_plan(json.dumps(document), "p.json")
    except InvalidPlan as error:
        lines = (error.detail or "").splitlines()
        only_beside = all(any(words in line for words in BESIDE_THE_SCHEMA) for line in lines)
        assert not fits or only_beside, lines
    else:
        assert fits, document
