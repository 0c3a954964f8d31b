"""Every mistake of a plan is found at once, at its line, with what to write instead."""

import json
import time

import pytest

from agentos.core.plan import parse_plan
from agentos.store.errors import InvalidPlan


def mistakes(text: str, source: str = "p.yaml") -> list[str]:
    """The lines of the refusal, without the file's name."""
    with pytest.raises(InvalidPlan) as caught:
        parse_plan(text, source)
    assert caught.value.detail
    assert caught.value.hint
    lines = caught.value.detail.split("\n")
    assert all(line.startswith((f"{source}:", "…")) for line in lines)
    return [line.removeprefix(f"{source}:") for line in lines]


def test_all_mistakes_are_reported_together_with_their_lines() -> None:
    text = """\
titel: Release
items:
  - key: build
    comand: make
  - key: test
    command: make test
    depends_on: [biuld, test, build, build]
    timeout: 5 minutes
    retries: true
  - key: build
    prompt: hello
    payload: {a: 1}
    evidence:
      - type: EXIT
        expected: {exit_code: 0}
      - type: FILE_SHA256
        expected: {path: x}
"""
    with pytest.raises(InvalidPlan) as caught:
        parse_plan(text, "release.yaml")
    assert caught.value.message == "release.yaml has 12 mistakes; nothing was created"
    assert mistakes(text) == [
        '1: titel: there is no such field (did you mean "title"?); the fields are title, queue, items',
        "3: items[0].command: an item needs one of command, prompt, kind; it has 0",
        '4: items[0].comand: there is no such field (did you mean "command"?); the fields are key, command, cwd, env, '
        "prompt, model, system, kind, payload, depends_on, evidence, retries, max_attempts, timeout, queue",
        '7: items[1].depends_on: no item has the key "biuld" (did you mean "build"?)',
        '7: items[1].depends_on: "test" is the item itself',
        '7: items[1].depends_on: "build" is there twice',
        '8: items[1].timeout: "5 minutes" is no duration: write seconds, or "90s", "5m", "1h30m"',
        "9: items[1].retries: must be a whole number, it is true",
        '10: items[2].key: "build" is the key of items[0] too, on line 3',
        "12: items[2].payload: goes with kind only",
        "14: items[2].evidence[0].type: must be one of COMMAND_EXIT, ARTIFACT_EXISTS, FILE_SHA256, DB_ROW, "
        'it is "EXIT"',
        "17: items[2].evidence[1].expected: expected of FILE_SHA256 evidence has no 'sha256': give 'path', 'sha256'",
    ]


def test_a_cycle_is_named_all_the_way_round() -> None:
    text = """\
items:
  - {key: a, command: x, depends_on: c}
  - {key: b, command: x, depends_on: [a]}
  - key: c
    command: x
    depends_on:
      - free
      - b
  - {key: free, command: x}
  - {key: after, command: x, depends_on: [a]}
"""
    assert mistakes(text) == ['2: items[0].depends_on: the items wait for each other: "a" → "c" → "b" → "a"']


def test_two_separate_cycles_are_both_named() -> None:
    chain = {"a": "b", "b": "a", "c": "d", "d": "c"}
    items = [{"key": key, "command": "x", "depends_on": [needs]} for key, needs in chain.items()]
    found = mistakes(json.dumps({"items": items}, indent=1))
    assert [line.partition("other: ")[2] for line in found] == ['"a" → "b" → "a"', '"c" → "d" → "c"']


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "1: the plan is empty"),
        ("# nothing\n", "1: the plan is empty"),
        ("- a\n- b\n", "1: must be an object, it is a list"),
        ("just words", "1: must be an object, it is a string"),
        ("title: x", "1: items: a plan needs a list of items"),
        ("items:", "1: items: must be a list, it is empty"),
        ("title: x\nitems: []", "2: items: must have from 1 to 10000 items, it has 0"),
        ("items:\n  - just a word", "2: items[0]: must be an object, it is a string"),
        ("items:\n  - command: x", "2: items[0].key: an item needs a key"),
        ("items: [{key: 1, command: x}]", "1: items[0].key: must be a string, it is a number (1): put it in quotes"),
        ("items: [{key: a b, command: x}]", '1: items[0].key: "a b" does not match'),
        ("items: [{key: a, command: ''}]", "1: items[0].command: must not be empty"),
        ("items: [{key: a, command: []}]", "1: items[0].command: must be a string, or a list of strings"),
        ("items: [{key: a, command: [ls, 1]}]", "1: items[0].command: must be a string, or a list of strings"),
        ("items: [{key: a, command: x, prompt: y}]", "1: items[0].prompt: an item needs one of command, prompt, kind"),
        ("items: [{key: a, command: x, model: m}]", "1: items[0].model: goes with prompt only"),
        ("items: [{key: a, kind: k, cwd: m}]", "1: items[0].cwd: goes with command only"),
        ("items: [{key: a, kind: k, payload: [1]}]", "1: items[0].payload: must be an object, it is a list"),
        ("items: [{key: a, kind: k k}]", '1: items[0].kind: "k k" does not match'),
        ("items: [{key: a, command: x, env: {A: 1}}]", "1: items[0].env: the value of A must be a string"),
        ("items: [{key: a, command: x, env: {A=B: c}}]", '1: items[0].env: "A=B" is no name of a variable'),
        ("items: [{key: a, command: x, retries: -1}]", "1: items[0].retries: must be from 0 to 999, it is -1"),
        ("items: [{key: a, command: x, max_attempts: 0}]", "1: items[0].max_attempts: must be from 1 to 1000"),
        ("items: [{key: a, command: x, retries: 1, max_attempts: 2}]", "1: items[0].retries: give retries or max_att"),
        ("items: [{key: a, command: x, timeout: 0}]", "1: items[0].timeout: must be more than 0"),
        (f"items: [{{key: {10**400}, command: x}}]", "1: items[0].key: must be a string, it is a number (10000"),
        (f"items: [{{key: a, command: x, retries: {10**400}}}]", "1: items[0].retries: must be from 0 to 999"),
        (f"items: [{{key: a, command: x, timeout: {10**400}}}]", "1: items[0].timeout: must be more than 0"),
        (f"items: [{{key: a, command: x, timeout: {10**400}s}}]", "1: items[0].timeout: must be more than 0"),
        ("items: [{key: a, command: x, timeout: 99d}]", "1: items[0].timeout: must be more than 0 and at most 2592000"),
        ("items: [{key: a, command: x, timeout: .nan}]", "1: items[0].timeout: nan is no JSON number"),
        ("items: [{key: a, command: x, timeout: yes}]", "1: items[0].timeout: must be seconds, or a duration"),
        ("items: [{key: a, command: x, depends_on: [1]}]", "1: items[0].depends_on: must be a list of keys"),
        ("items: [{key: a, command: x, depends_on: {b: c}}]", "1: items[0].depends_on: must be a key or a list"),
        ("items: [{key: a, command: x, evidence: {}}]", "1: items[0].evidence: must be a list"),
        ("items: [{key: a, command: x, evidence: [x]}]", "1: items[0].evidence[0]: must be an object, it is a string"),
        (
            "items: [{key: a, command: x, evidence: [{type: DB_ROW}]}]",
            "1: items[0].evidence[0].expected: evidence needs expected",
        ),
        (
            "items: [{key: a, command: x, evidence: [{type: DB_ROW, expected: {}}]}]",
            "1: items[0].evidence[0].expected: expected of DB_ROW evidence has no 'table'",
        ),
        (
            "items: [{key: a, command: x, evidence: [{type: COMMAND_EXIT, expected: {exit_code: 0},\n"
            " metadata: {rerun: 1}}]}]",
            "2: items[0].evidence[0].metadata: metadata['rerun']",
        ),
        (
            "items: [{key: a, kind: k, payload: {evidence: 1},\n"
            " evidence: [{type: COMMAND_EXIT, expected: {exit_code: 0}}]}]",
            "2: items[0].evidence: the payload has a field evidence of its own",
        ),
    ],
)
def test_each_mistake_says_where_and_what(text: str, mistake: str) -> None:
    first = mistakes(text)[0]
    assert first.startswith(mistake), first


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("items: [", "1: not YAML: "),
        ("title: x\n\titems: []", "2: not YAML: "),
        ("title: a: b", "1: not YAML: "),
        ("title: x\nitems: *nobody", "2: not YAML: found undefined alias"),
        ("title: x\n---\ntitle: y", "2: not YAML: expected a single document"),
        ("title: x\nbad: \x07", "2: not YAML: "),
        ("title: x\ntitle: y\nitems: []", "2: title: the key is there twice, first on line 1"),
        ("1: x\nitems: []", '1: a key must be a string: write "1"'),
        ("yes: x\nitems: []", '1: a key must be a string: write "yes"'),
        ("? [a]\n: x\nitems: []", "1: a key must be a string: write a string"),
        ("title: 2024-01-31\nitems: []", '1: title: a date is no JSON value: write "2024-01-31"'),
        (
            "title: !!python/object/apply:os.system [x]\nitems: []",
            '1: title: the tag "!!python/object/apply:os.system"',
        ),
        ("title: !mine x\nitems: []", '1: title: the tag "!mine" is not allowed'),
        ("title: !!binary aGk=\nitems: []", '1: title: the tag "!!binary" is not allowed'),
        ("title: !!set {a}\nitems: []", '1: title: the tag "!!set" is not allowed'),
        ('title: "a\\0b"\nitems: []', "1: title: a NUL character cannot be stored"),
        ("items: &a [*a]", "1: items[0]: an alias stands inside what it names"),
        ("<<: x\nitems: []", "1: << takes a mapping"),
        ("items: [{key: a, kind: k, payload: {x: [1, .inf]}}]", "1: items[0].payload.x[1]: inf is no JSON number"),
        ("items: [{key: a, kind: k, payload: {'a b': .inf}}]", '1: items[0].payload["a b"]: inf is no JSON number'),
        (
            f"items: [{{key: a, kind: k, payload: {{x: {'9' * 5000}}}}}]",
            "1: items[0].payload.x: the number has more th",
        ),
        ("title: x\nitems: " + "[" * 60 + "]" * 60, "2: nested deeper than 50 levels"),
        ("[" * 100_000, "1: "),
        ("- " * 100_000, "1: "),
    ],
)
def test_yaml_that_is_no_plain_data_is_refused_with_its_line(text: str, mistake: str) -> None:
    first = mistakes(text)[0]
    assert first.startswith(mistake), first


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "1: not JSON: expecting value"),
        ('{\n "items": [\n', "3: not JSON: expecting value"),
        ('{\n "items": [1,]}', "2: not JSON: expecting value"),
        ('{\n "items" [1]}', "2: not JSON: a colon is missing"),
        ("{\n items: []}", "2: not JSON: a key in double quotes is missing"),
        ('{"items": [1 2]}', "1: not JSON: a comma or ] is missing"),
        ('{"items": []}\n}', "2: not JSON: something follows"),
        ('{"title": NaN}', "1: not JSON: NaN is no JSON value"),
        ('{"title": "a\n"}', "1: not JSON: invalid control character"),
        ('{"title": "x",\n "title": "y"}', "1: items: a plan needs"),
        ('{"title": "a\\u0000"}', "1: items: a plan needs"),
        ('{"title": ' + "[" * 100_000, "1: title[0][0]"),
        ('{"title": ' + "9" * 5000 + "}", "1: title: the number has more than 4300 digits"),
        ('{"items": [{"key": "a", "kind": "k", "payload": {"x": 1e400}}]}', "1: items[0].payload.x: inf is no JSON"),
        ('{"items": [{"key": "a", "kind": "k", "payload": {"x": "\\ud800"}}]}', "1: items[0].payload.x: a lone surrog"),
    ],
)
def test_json_that_is_no_plain_data_is_refused_with_its_line(text: str, mistake: str) -> None:
    found = mistakes(text, "p.json")
    assert any(line.startswith(mistake) for line in found), found


def test_a_key_given_twice_is_found_in_json_too() -> None:
    found = mistakes('{"items": [\n{"key": "a",\n "command": "x",\n "key": "b"}]}', "p.json")
    assert found == ["4: items[0].key: the key is there twice, first on line 2"]


def test_an_alias_bomb_is_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    started = time.monotonic()
    assert "aliases counted" in mistakes("\n".join(lines))[0]
    long = "x" * 500_000
    text = f'items: [{{key: a, kind: k, payload: {{x: &x "{long}", y: [{", ".join(["*x"] * 50)}]}}}}]'
    assert "aliases counted" in mistakes(text)[0]
    assert time.monotonic() - started < 5


def test_large_plans_full_of_mistakes_are_refused_in_time() -> None:
    started = time.monotonic()
    knot = [{"key": f"i{n}", "command": "x", "depends_on": [f"i{n + 1}", "i0"]} for n in range(9_000)]
    assert len(mistakes(json.dumps({"items": knot}))) < 60
    wrong = [{"key": f"item-{n}", "command": "x", "depends_on": [f"itme-{n}"]} for n in range(9_000)]
    found = mistakes(json.dumps({"items": wrong}))
    assert found[-1] == "… and 8950 more"
    assert time.monotonic() - started < 15


def test_a_text_that_is_too_large_is_refused_unread() -> None:
    with pytest.raises(InvalidPlan, match="characters"):
        parse_plan("#" * 2_000_000)


def test_a_text_with_half_a_character_is_refused() -> None:
    assert mistakes("title: x\nitems: \ud800")[0].startswith("2: ")
