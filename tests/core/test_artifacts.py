"""The artifact store: whole or not at all, once for each content, fetched back, damage mended; on disk, S3, memory."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from tests.object_store import Bucket, use

from agentos.core.artifacts import ArtifactStore, local
from agentos.core.checkpoints import CheckpointManager, Evidence
from agentos.core.evidence import beneath
from agentos.core.evidence.remote import filesystem
from agentos.core.task import TaskManager
from agentos.store.errors import ArtifactUnavailable, InvalidArtifact

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PLACE = f"sha256/{SHA256[:2]}/{SHA256}"


@pytest.fixture(params=["folder", "s3", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArtifactStore]:
    """An empty store that AGENTOS_ARTIFACTS names."""
    monkeypatch.chdir(tmp_path)
    location = str(tmp_path / "store")
    if request.param == "memory":
        location = "memory://artifacts"
    elif request.param == "s3":
        bucket: Bucket = request.getfixturevalue("bucket")
        location = f"{bucket.url}/artifacts"
    monkeypatch.setenv("AGENTOS_ARTIFACTS", location)
    yield ArtifactStore()
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()


def raw(store: ArtifactStore) -> dict[str, bytes]:
    """All that is in the store, by its place."""
    if "://" not in store.location:
        files = [each for each in Path(store.location).rglob("*") if each.is_file()]
        return {str(each.relative_to(store.location)): each.read_bytes() for each in files}
    fs = filesystem(store.location)
    base = fs._strip_protocol(store.location)
    return {each.removeprefix(f"{base}/"): fs.cat_file(each) for each in fs.find(base)}


def damage(store: ArtifactStore, content: bytes) -> None:
    place = f"{store.location}/{PLACE}"
    if "://" in place:
        filesystem(place).pipe_file(place, content)
    else:
        Path(place).write_bytes(content)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "report.bin"
    path.write_bytes(CONTENT)
    return path


def test_a_file_is_stored_under_its_hash_once_and_fetched_back(store: ArtifactStore, source: Path) -> None:
    evidence = store.put(source)
    assert evidence.expected == {"path": f"{store.location}/{PLACE}", "sha256": SHA256}
    assert (evidence.description, evidence.metadata["artifact"]) == (
        "report.bin", {"name": "report.bin", "bytes": len(CONTENT)},
    )  # fmt: skip
    source.rename(source.with_name("other"))
    assert store.put(source.with_name("other"), "the report").expected == evidence.expected
    assert raw(store) == {PLACE: CONTENT}
    named: list[Any] = [evidence, evidence.as_json(), SHA256.upper()]
    for n, artifact in enumerate(named):
        fetched = store.get(artifact, Path("fetched") / str(n))
        assert fetched.read_bytes() == CONTENT
    assert len(list(Path("fetched").iterdir())) == 3


def test_the_manager_stores_and_its_checkpoint_holds_until_the_artifact_is_damaged(
    database_dsn: str, store: ArtifactStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not beneath._openat2_works() and store.location.startswith("/"):
        pytest.skip("roots are tested elsewhere")
    monkeypatch.setenv("AGENTOS_EVIDENCE_ROOTS", "/nowhere")  # the artifact store is always one
    TaskManager().create_task("a task", task_id="task-123")
    manager = CheckpointManager()
    evidence = manager.artifact(source)
    made = manager.commit_step(manager.begin_step("task-123", "iteration_end", {}), [evidence])
    assert manager.verify_checkpoint(made.checkpoint_id)
    damage(store, CONTENT[::-1])
    assert "expected" in manager.explain_checkpoint(made.checkpoint_id).reason
    with pytest.raises(ArtifactUnavailable, match="was damaged"):
        manager.fetch_artifact(evidence, "fetched")
    assert not Path("fetched").exists()
    assert manager.artifact(source).expected == evidence.expected
    assert manager.verify_checkpoint(made.checkpoint_id)
    assert manager.fetch_artifact(evidence, "fetched").read_bytes() == CONTENT


def test_a_file_of_several_pieces_is_stored_whole(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "CHUNK", 1000)
    path = tmp_path / "large"
    path.write_bytes(CONTENT * 3)
    evidence = store.put(path)
    assert list(raw(store).values()) == [CONTENT * 3]
    assert store.get(evidence, "back").read_bytes() == CONTENT * 3


def test_an_empty_file_is_an_artifact_too(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert store.get(store.put(tmp_path / "empty"), "back").read_bytes() == b""


def test_a_file_that_changes_while_it_is_stored_is_not_stored_half_old_half_new(
    store: ArtifactStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = ArtifactStore._is_there

    def grow(self: ArtifactStore, sha256: str, size: int) -> bool:
        with source.open("ab") as also:
            also.write(b"!")
        return there(self, sha256, size)

    monkeypatch.setattr(ArtifactStore, "_is_there", grow)
    with pytest.raises(InvalidArtifact, match="changed while it was stored"):
        store.put(source)
    assert raw(store) == {}


def test_what_is_no_file_and_what_is_no_artifact_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for wrong, why in (("absent", "cannot be read"), (tmp_path, "not a regular"), (tmp_path / "fifo", "not a regular")):
        with pytest.raises(InvalidArtifact, match=why):
            store.put(wrong)
    wrong_ones: list[Any] = ["abc", {}, {"expected": {"path": "x"}}, Evidence("command_exit", "", {"exit_code": 0})]
    for artifact in wrong_ones:
        with pytest.raises(InvalidArtifact, match="names no artifact"):
            store.get(artifact, "fetched")
    with pytest.raises(ArtifactUnavailable):
        store.get("0" * 64, "fetched")


def test_a_store_that_cannot_be_reached_is_said_with_the_fix(
    source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use("http://127.0.0.1:9", monkeypatch)  # the discard port: nobody listens
    (tmp_path / "file").touch()
    for location in ("s3://bucket/prefix", str(tmp_path / "file")):
        with pytest.raises(ArtifactUnavailable, match="AGENTOS_ARTIFACTS"):
            ArtifactStore(location).put(source)


def test_what_a_killed_process_left_unfinished_is_removed_after_a_day(tmp_path: Path, source: Path) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    store.put(source)
    folder = (tmp_path / "store" / PLACE).parent
    old, new = folder / f"{local.UNFINISHED}old", folder / f"{local.UNFINISHED}new"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    (folder / SHA256).unlink()
    store.put(source)
    assert sorted(each.name for each in folder.iterdir()) == sorted([new.name, SHA256])
