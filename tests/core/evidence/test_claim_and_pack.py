"""What is well-formed evidence, what a pack asks for, and that both come back from JSON as they were."""

from typing import Any

import pytest

from agentos.core.evidence import Evidence, EvidencePack, EvidenceType, LocalWorld, check_pack, stamp, stamp_pack
from agentos.core.evidence.claim import CLAIM_LIMIT
from agentos.store.canonical import canonical, loads
from agentos.store.errors import InvalidEvidence

EXIT = {"exit_code": 0}
FILE = {"path": "f"}
ROW = {"table": "t", "where": {"id": 1}}
SNIPPETS = [
    (EvidenceType.COMMAND_EXIT, "Command succeeded", {"exit_code": 0}, {"command": "echo test"}),
    (EvidenceType.ARTIFACT_EXISTS, "Output file created", {"path": "/tmp/output.txt", "type": "file"}, {}),
    (EvidenceType.FILE_SHA256, "Config file unchanged", {"path": "/etc/config.yaml", "sha256": "abc123..."}, {}),
    (
        EvidenceType.DB_ROW,
        "Task status updated",
        {"table": "tasks", "where": {"task_id": "task-123"}, "values": {"status": "completed"}},
        {"db_path": "store/registry.sqlite"},
    ),
]


@pytest.mark.parametrize(("kind", "description", "expected", "metadata"), SNIPPETS)
def test_the_evidence_of_the_quick_reference_is_well_formed_and_comes_back_from_json(
    kind: EvidenceType, description: str, expected: dict[str, Any], metadata: dict[str, Any]
) -> None:
    evidence = Evidence(evidence_type=kind, description=description, expected=expected, metadata=metadata)
    assert Evidence.from_json(loads(canonical(evidence.as_json()))) == evidence
    assert (evidence.expected, evidence.metadata) == (expected, metadata)


@pytest.mark.parametrize("name", ["command_exit", "COMMAND_EXIT", EvidenceType.COMMAND_EXIT])
def test_the_type_may_be_given_as_text(name: str) -> None:
    assert Evidence(name, "", EXIT).evidence_type is EvidenceType.COMMAND_EXIT


@pytest.mark.parametrize(
    ("kind", "expected", "metadata", "complaint"),
    [
        ("exit", EXIT, {}, "no evidence type"),
        (None, EXIT, {}, "no evidence type"),
        (["x"], EXIT, {}, "no evidence type"),
        ("command_exit", {}, {}, "no 'exit_code'"),
        ("command_exit", {"exit_code": "0"}, {}, "must be an integer"),
        ("command_exit", {"exit_code": True}, {}, "must be an integer"),
        ("command_exit", {"exit_code": 0, "stdout": "x"}, {}, "unknown key 'stdout'"),
        ("command_exit", None, {}, "expected is of type NoneType"),
        ("command_exit", EXIT, ["x"], "metadata is of type list"),
        ("command_exit", EXIT, {"command": 1}, "must be a string"),
        ("command_exit", EXIT, {"rerun": 1, "command": "x"}, "must be true or false"),
        ("command_exit", EXIT, {"rerun": True}, "names no command"),
        ("command_exit", EXIT, {"command": "x", "timeout_s": 0}, "seconds above 0"),
        ("artifact_exists", {"type": "file"}, {}, "no 'path'"),
        ("artifact_exists", {"path": ""}, {}, "not empty"),
        ("artifact_exists", {"path": "a\x00b"}, {}, "NUL"),
        ("artifact_exists", {"path": "a\udcffb"}, {}, "surrogate"),
        ("artifact_exists", {"path": "f", "type": "fifo"}, {}, "'file' or 'directory'"),
        ("artifact_exists", {"path": "f", "min_size": -1}, {}, "bytes"),
        ("artifact_exists", {"path": "f", "minsize": 1}, {}, "unknown key 'minsize'"),
        ("file_sha256", FILE, {}, "no 'sha256'"),
        ("file_sha256", {"path": "f", "sha256": 5}, {}, "string"),
        ("db_row", {"table": "t"}, {}, "no 'where'"),
        ("db_row", {"table": "t", "where": []}, {}, "object"),
        ("db_row", {"table": "t", "where": {str(n): n for n in range(9)}}, {}, "at most 8"),
        ("db_row", ROW | {"values": {f"c{n}": n for n in range(9)}}, {}, "at most 8"),
        ("db_row", {"table": "t", "where": {1: 1}}, {}, "key of type int"),
        ("db_row", {"table": "t", "where": {"a": float("nan")}}, {}, "nan"),
        ("db_row", {"table": "t", "where": {"a": "x" * CLAIM_LIMIT}}, {}, "larger than its limit"),
        ("db_row", ROW, {"db_path": ""}, "not empty"),
        ("db_row", ROW, {"made_on": "here"}, "host and workspace"),
    ],
)
def test_what_is_not_well_formed_is_refused(kind: Any, expected: Any, metadata: Any, complaint: str) -> None:
    with pytest.raises(InvalidEvidence) as caught:
        Evidence(kind, "description", expected, metadata)
    assert complaint in caught.value.message


@pytest.mark.parametrize(
    "data", [None, [], {"evidence_type": "command_exit"}, {"expected": EXIT}, {"evidence_type": "x", "expected": EXIT},
             {"evidence_type": "command_exit", "expected": EXIT, "exepcted": {}},
             {"evidence_type": "command_exit", "expected": EXIT, "description": 1}],
)  # fmt: skip
def test_json_that_is_no_evidence_is_refused(data: object) -> None:
    with pytest.raises(InvalidEvidence):
        Evidence.from_json(data)


def test_what_the_caller_changes_later_does_not_change_the_evidence() -> None:
    where = {"id": 1}
    evidence = Evidence("db_row", "", {"table": "t", "where": where})
    where.clear()
    assert evidence.expected["where"] == {"id": 1}


def artifacts(world: LocalWorld, *, there: int, missing: int) -> list[Evidence]:
    names = [f"there-{n}" for n in range(there)] + [f"missing-{n}" for n in range(missing)]
    for name in names[:there]:
        (world.cwd / name).touch()
    return [Evidence("artifact_exists", name, {"path": name}) for name in names]


@pytest.mark.parametrize(
    ("there", "missing", "asked", "holds"),
    [
        (0, 0, {}, True), (0, 0, {"allow_partial": True}, True), (0, 0, {"require_all": True}, True),
        (2, 0, {}, True), (1, 1, {}, False), (1, 1, {"require_all": True}, False), (0, 1, {}, False),
        (1, 1, {"allow_partial": True}, True), (0, 2, {"allow_partial": True}, False),
        (1, 2, {"require_all": False}, True), (0, 2, {"require_all": False}, False),
        (2, 1, {"min_verified": 2}, True), (1, 2, {"min_verified": 2}, False),
        (1, 2, {"require_all": False, "allow_partial": True, "min_verified": 2}, False),
        (2, 1, {"require_all": False, "allow_partial": True, "min_verified": 2}, True),
    ],
)  # fmt: skip
def test_how_many_must_hold(world: LocalWorld, there: int, missing: int, asked: dict[str, Any], holds: bool) -> None:
    pack = EvidencePack(artifacts(world, there=there, missing=missing), **asked)
    for each in (pack, EvidencePack.from_json(loads(canonical(pack.as_json())))):
        verdict = check_pack(each, world)
        assert verdict.holds is holds
        assert [one.holds for one in verdict.verdicts] == [True] * there + [False] * missing
        assert all(f"missing-{n}: " in verdict.reason for n in range(missing)) or holds
        assert loads(canonical(verdict.as_json()))["holds"] is holds


def test_the_attributes_of_a_pack_say_what_it_asks() -> None:
    one = [Evidence("command_exit", "", EXIT)]
    default, partial = EvidencePack(evidence_list=one), EvidencePack(evidence_list=one, min_verified=1)
    assert (default.require_all, default.allow_partial, default.min_verified) == (True, False, None)
    assert (partial.require_all, partial.allow_partial, partial.min_verified) == (False, True, 1)
    assert EvidencePack(evidence_list=[]).evidence_list == []


@pytest.mark.parametrize(
    "asked",
    [{"require_all": True, "allow_partial": True}, {"require_all": True, "min_verified": 1}, {"min_verified": 0},
     {"min_verified": -1}, {"min_verified": 2}, {"min_verified": True}, {"min_verified": 1.5}, {"allow_partial": 1},
     {"require_all": "yes"}],
)  # fmt: skip
def test_a_pack_that_contradicts_itself_or_cannot_fail_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidEvidence):
        EvidencePack([Evidence("command_exit", "", EXIT)], **asked)


@pytest.mark.parametrize("items", [None, "x", [EXIT], {"a": 1}])
def test_a_pack_of_something_else_is_refused(items: Any) -> None:
    with pytest.raises(InvalidEvidence):
        EvidencePack(items)
    with pytest.raises(InvalidEvidence):
        EvidencePack.from_json({"evidence_list": items})


def test_a_stamp_is_kept_and_says_where_the_evidence_was_made(world: LocalWorld) -> None:
    evidence = stamp(Evidence("artifact_exists", "", {"path": "absent"}), host="other", workspace=world.cwd)
    pack = stamp_pack(EvidencePack([evidence, Evidence("artifact_exists", "", {"path": "absent"})], min_verified=2))
    assert pack.evidence_list[0] == evidence
    assert pack.min_verified == 2
    there, here = check_pack(pack, world).verdicts
    assert f"made on host other in {world.cwd}" in there.reason
    assert "made on host" not in here.reason
    assert EvidencePack.from_json(pack.as_json()) == pack
