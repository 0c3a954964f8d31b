"""A plan file says what it means, in YAML or JSON, and becomes the items that the engine takes."""

import json
from pathlib import Path

import pytest

from agentos.core.evidence import Evidence, EvidenceType
from agentos.core.plan import Plan, PlanItem, load_plan, parse_plan, to_items
from agentos.store.canonical import canonical
from agentos.store.errors import InvalidPlan

RELEASE = """\
title: Release
queue: builders
items:
  - key: build
    command: make all
    cwd: src
    env: {DEBUG: "0"}
    timeout: 5m
    retries: 2
    evidence:
      - type: COMMAND_EXIT
        description: it compiles
        expected: {exit_code: 0}
      - type: artifact_exists
        expected: {path: out/app, type: file}
        metadata: {note: fresh}
  - key: summary
    depends_on: build
    prompt: |
      Summarise
      the build.
    model: small
    max_attempts: 1
    queue: models
  - key: publish
    depends_on: [build, summary]
    kind: my_app.publish
    payload: {where: [1, 2.5, null, true], big: 123456789012345678901234567890}
    timeout: 90
"""


def test_a_yaml_file_becomes_a_plan(tmp_path: Path) -> None:
    file = tmp_path / "release.yaml"
    file.write_text(RELEASE)
    assert load_plan(file) == Plan(
        "Release",
        (
            PlanItem(
                "build",
                "shell",
                {"command": "make all", "cwd": "src", "env": {"DEBUG": "0"}},
                (),
                3,
                300.0,
                "builders",
                (
                    Evidence(EvidenceType.COMMAND_EXIT, "it compiles", {"exit_code": 0}, {"command": "make all"}),
                    Evidence(EvidenceType.ARTIFACT_EXISTS, "", {"path": "out/app", "type": "file"}, {"note": "fresh"}),
                ),
            ),
            PlanItem(
                "summary",
                "llm",
                {"prompt": "Summarise\nthe build.\n", "model": "small"},
                ("build",),
                1,
                None,
                "models",
            ),
            PlanItem(
                "publish",
                "my_app.publish",
                {"where": [1, 2.5, None, True], "big": 123456789012345678901234567890},
                ("build", "summary"),
                5,
                90.0,
                "builders",
            ),
        ),
    )


def test_the_same_plan_in_json_is_the_same_plan() -> None:
    plan = parse_plan(RELEASE, "release.yaml")
    document = {
        "title": "Release",
        "queue": "builders",
        "items": [
            {
                "key": "build",
                "command": "make all",
                "cwd": "src",
                "env": {"DEBUG": "0"},
                "timeout": "5m",
                "retries": 2,
                "evidence": [
                    {"type": "COMMAND_EXIT", "description": "it compiles", "expected": {"exit_code": 0}},
                    {
                        "type": "artifact_exists",
                        "expected": {"path": "out/app", "type": "file"},
                        "metadata": {"note": "fresh"},
                    },
                ],
            },
            {
                "key": "summary",
                "depends_on": "build",
                "prompt": "Summarise\nthe build.\n",
                "model": "small",
                "max_attempts": 1,
                "queue": "models",
            },
            {
                "key": "publish",
                "depends_on": ["build", "summary"],
                "kind": "my_app.publish",
                "payload": {"where": [1, 2.5, None, True], "big": 123456789012345678901234567890},
                "timeout": 90,
            },
        ],
    }
    assert parse_plan(json.dumps(document, indent="\t"), "release.json") == plan
    assert parse_plan(json.dumps(document), "anything") == plan


def test_the_items_are_what_the_engine_takes() -> None:
    build, summary, _ = to_items(parse_plan(RELEASE))
    assert list(build) == ["key", "kind", "payload", "depends_on", "max_attempts", "timeout_s", "queue"]
    assert build["payload"]["evidence"][0] == {
        "evidence_type": "command_exit",
        "description": "it compiles",
        "expected": {"exit_code": 0},
        "metadata": {"command": "make all"},
    }
    assert [Evidence.from_json(each) for each in build["payload"]["evidence"]]
    assert summary == {
        "key": "summary",
        "kind": "llm",
        "payload": {"prompt": "Summarise\nthe build.\n", "model": "small"},
        "depends_on": ["build"],
        "max_attempts": 1,
        "timeout_s": None,
        "queue": "models",
    }
    assert canonical([build, summary])


def test_what_is_left_out_has_its_default() -> None:
    plan = parse_plan("items: [{key: only, command: [ls, -l]}]", "plans/nightly.yaml")
    assert plan == Plan("nightly", (PlanItem("only", "shell", {"command": ["ls", "-l"]}),))
    assert (plan.items[0].max_attempts, plan.items[0].timeout_s, plan.items[0].queue) == (5, None, None)


def test_evidence_of_a_command_may_name_another_command() -> None:
    plan = parse_plan(
        "items: [{key: a, command: make, evidence: "
        "[{type: COMMAND_EXIT, expected: {exit_code: 0}, metadata: {command: make test}}]}]"
    )
    assert plan.items[0].evidence[0].metadata == {"command": "make test"}


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90", 90), ("0.5", 0.5), ("5m", 300), ("1h30m", 5400), ("1.5h", 5400), ("500ms", 0.5), ("2d", 172_800)],
)
def test_a_timeout_is_seconds_or_a_duration(written: str, seconds: float) -> None:
    assert parse_plan(f"items: [{{key: a, command: b, timeout: {written}}}]").items[0].timeout_s == seconds


def test_anchors_and_merge_keys_share_settings() -> None:
    plan = parse_plan(
        """
items:
  - &first {key: a, command: one, retries: 1, timeout: 10}
  - {<<: *first, key: b, timeout: 20}
  - {<<: [{retries: 4}, *first], key: c, depends_on: [a, b]}
"""
    )
    assert [(i.key, i.payload["command"], i.max_attempts, i.timeout_s) for i in plan.items] == [
        ("a", "one", 2, 10.0),
        ("b", "one", 2, 20.0),
        ("c", "one", 5, 10.0),
    ]


def test_a_byte_order_mark_and_windows_lines_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "plan.yml"
    file.write_bytes(b"\xef\xbb\xbf" + RELEASE.replace("\n", "\r\n").encode())
    assert load_plan(file).title == "Release"


def test_json_may_escape_what_yaml_cannot() -> None:
    plan = parse_plan('{"items": [{"key": "a", "command": "echo \\ud83d\\ude00 \\/"}]}')
    assert plan.items[0].payload["command"] == "echo \U0001f600 /"


def test_yaml_in_its_json_like_style_is_yaml() -> None:
    assert parse_plan("{items: [{key: a, command: b}]} # a comment").items[0].key == "a"


def test_a_chain_of_ten_thousand_items_is_a_plan() -> None:
    items = [{"key": f"i{n}", "command": "true", "depends_on": [f"i{n - 1}"] if n else []} for n in range(10_000)]
    assert len(parse_plan(json.dumps({"items": items})).items) == 10_000


def test_a_file_that_cannot_be_read_is_an_invalid_plan(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"title: x\nitems: caf\xe9\n")
    (tmp_path / "huge.yaml").write_bytes(b"#" * (5 * 1024 * 1024))
    for name, message in [
        ("nowhere.yaml", "No such file"),
        (".", "Is a directory"),
        ("latin.yaml", r"not UTF-8 \(line 2"),
        ("huge.yaml", "larger than"),
    ]:
        with pytest.raises(InvalidPlan, match=message):
            load_plan(tmp_path / name)
