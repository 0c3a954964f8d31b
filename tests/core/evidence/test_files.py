"""ARTIFACT_EXISTS and FILE_SHA256: shown true, and failing in every way, through openat2 and without it."""

import contextlib
import errno
import hashlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.core.evidence.worlds import MakeWorld

from agentos.core.evidence import Evidence, LocalWorld, Verdict, beneath, check, default_roots, files
from agentos.store.settings import load_settings

CONTENT = b"what was made"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(params=["openat2", "component by component"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "openat2" and not beneath._openat2_works():
        pytest.skip("this kernel or sandbox has no openat2")
    monkeypatch.setattr(beneath, "_openat2_works", lambda: request.param == "openat2")


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A root with one of everything, beside a folder that is out of bounds."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "sub" / "empty").mkdir(parents=True)
    outside.mkdir()
    for folder in (root, root / "sub", outside):
        (folder / "file").write_bytes(CONTENT)
    (root / "link").symlink_to(root / "file")
    (root / "escape").symlink_to(outside / "file")
    (root / "folder-link").symlink_to(outside)
    (root / "inner-link").symlink_to("sub")
    (root / "dangling").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    (root / "%2e%2e").mkdir()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        here = Path.cwd()
        os.chdir(root)  # the name of a socket may have only some 100 bytes
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
        yield root


@pytest.fixture
def at_root(make_world: MakeWorld, tree: Path) -> LocalWorld:
    return make_world(cwd=tree, evidence_roots=(tree,))


@pytest.mark.parametrize("url", ["file://file", "file://localhost/etc/passwd", "FILE://"])
def test_a_file_url_with_a_host_is_refused(at_root: LocalWorld, url: str) -> None:
    assert "no file:/// URL" in exists(at_root, url).reason
    assert "no file:/// URL" in sha256(at_root, url).reason


def test_a_file_url_is_a_path_and_held_to_the_same_roots(at_root: LocalWorld) -> None:
    assert sha256(at_root, f"file://{at_root.cwd}/sub/file").holds
    assert exists(at_root, f"FILE://{at_root.cwd}/sub", type="directory").holds
    assert "outside the evidence roots" in exists(at_root, "file:///etc/passwd").reason
    assert "symbolic link" in sha256(at_root, f"file://{at_root.cwd}/escape").reason


def exists(world: LocalWorld, path: str | Path, **expected: Any) -> Verdict:
    return check(Evidence("artifact_exists", "", {"path": str(path)} | expected), world)


def sha256(world: LocalWorld, path: str | Path, digest: str = SHA256) -> Verdict:
    return check(Evidence("file_sha256", "", {"path": str(path), "sha256": digest}), world)


@pytest.mark.parametrize("path", ["file", "sub/file", "./sub//file"])
def test_a_file_beneath_the_root_is_found_by_relative_and_absolute_path(at_root: LocalWorld, path: str) -> None:
    for named in (path, at_root.cwd / path):
        assert exists(at_root, named).holds
        assert exists(at_root, named, type="file", min_size=len(CONTENT)).holds
        assert sha256(at_root, named).holds
    assert sha256(at_root, path, SHA256.upper()).holds


@pytest.mark.parametrize("path", ["sub", "sub/empty", "."])
def test_a_directory_is_found(at_root: LocalWorld, path: str) -> None:
    assert exists(at_root, path, type="directory").holds
    assert exists(at_root, path).holds


@pytest.mark.parametrize(
    ("path", "expected", "reason"),
    [
        ("absent", {}, "absent does not exist"),
        ("absent/file", {}, "does not exist"),
        ("file/below", {}, "does not exist"),
        ("sub", {"type": "file"}, "sub is a directory, expected a file"),
        ("file", {"type": "directory"}, "file is a file, expected a directory"),
        ("file", {"min_size": 100}, "has 13 bytes, expected at least 100"),
        ("sub", {"min_size": 1}, "is a directory, which has no size"),
        ("fifo", {}, "fifo is a FIFO"),
        ("socket", {}, "socket is a socket"),
        ("x" * 300, {}, "cannot be opened"),
    ],
)
def test_an_artifact_that_is_not_as_claimed(
    at_root: LocalWorld, path: str, expected: dict[str, Any], reason: str
) -> None:
    verdict = exists(at_root, path, **expected)
    assert not verdict.holds
    assert reason in verdict.reason


@pytest.mark.parametrize(
    ("path", "digest", "reason"),
    [
        ("file", "0" * 64, f"sha256 of file is {SHA256[:12]}…, expected 000000000000…"),
        ("file", "abc123...", "'abc123...' is not a SHA-256"),
        ("file", SHA256[:63], "is not a SHA-256"),
        ("file", f"{SHA256}\n", "is not a SHA-256"),
        ("absent", SHA256, "does not exist"),
        ("sub", SHA256, "sub is a directory, expected a file"),
        ("fifo", SHA256, "fifo is a FIFO, expected a file"),
        ("socket", SHA256, "is a socket"),
    ],
)
def test_a_file_that_is_not_as_claimed(at_root: LocalWorld, path: str, digest: str, reason: str) -> None:
    verdict = sha256(at_root, path, digest)
    assert not verdict.holds
    assert reason in verdict.reason


@pytest.mark.parametrize("path", ["link", "escape", "folder-link", "folder-link/file", "inner-link/file", "dangling",
                                  "loop", "loop/file"])  # fmt: skip
def test_symbolic_links_are_not_followed(at_root: LocalWorld, path: str) -> None:
    for verdict in (exists(at_root, path), sha256(at_root, path)):
        assert not verdict.holds
        assert "symbolic link" in verdict.reason


@pytest.mark.parametrize("path", ["../outside/file", "sub/../../outside/file", "sub/../file", ".."])
def test_dots_are_refused(at_root: LocalWorld, path: str) -> None:
    for verdict in (exists(at_root, path), sha256(at_root, path), exists(at_root, at_root.cwd / path)):
        assert not verdict.holds
        assert "'..'" in verdict.reason


@pytest.mark.parametrize("path", ["%2e%2e/outside/file", "..\\outside\\file", "sub\\..\\..\\outside\\file", "~/file"])
def test_other_spellings_of_a_way_out_are_just_names(at_root: LocalWorld, path: str) -> None:
    assert "does not exist" in exists(at_root, path).reason


def test_a_path_outside_the_roots_is_refused_even_if_its_name_begins_like_one(at_root: LocalWorld, tree: Path) -> None:
    (tree.parent / "root-2").mkdir()
    (tree.parent / "root-2" / "file").write_bytes(CONTENT)
    for path in (tree.parent / "root-2" / "file", tree.parent / "outside" / "file", "/etc/passwd", "/"):
        for verdict in (exists(at_root, path), sha256(at_root, path)):
            assert not verdict.holds
            assert "outside the evidence roots" in verdict.reason


def test_a_root_may_be_reached_through_a_link_under_either_name(make_world: MakeWorld, tree: Path) -> None:
    linked = tree.parent / "linked"
    linked.symlink_to(tree)
    world = make_world(cwd=tree.parent, evidence_roots=(tree.parent / "absent", linked))
    assert sha256(world, "linked/file").holds
    assert sha256(world, tree / "file").holds
    assert not sha256(world, linked / "escape").holds


def test_the_innermost_root_decides(make_world: MakeWorld, tree: Path) -> None:
    world = make_world(cwd=tree, evidence_roots=(tree, tree / "inner-link"))
    assert sha256(world, "inner-link/file").holds


def test_a_root_that_does_not_exist_is_named(make_world: MakeWorld, tmp_path: Path) -> None:
    verdict = exists(make_world(evidence_roots=(tmp_path / "absent",)), tmp_path / "absent" / "file")
    assert not verdict.holds
    assert "evidence root" in verdict.reason


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Root may read everything, so root becomes somebody else for the test."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


def test_a_file_that_may_not_be_read(make_world: MakeWorld, unprivileged: None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "file").write_bytes(CONTENT)
        (root / "file").chmod(0)
        world = make_world(cwd=root, evidence_roots=(root,))
        assert exists(world, "file").holds
        assert sha256(world, "file").reason == "file may not be opened by this process"


def test_a_file_that_grows_while_it_is_read_or_is_too_large(
    at_root: LocalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grow(file: Any, name: str) -> Any:
        with (at_root.cwd / "file").open("ab") as also:
            also.write(b"!")
        return hashlib.sha256(CONTENT)

    monkeypatch.setattr("hashlib.file_digest", grow)
    assert "changed while it was read" in sha256(at_root, "file").reason
    monkeypatch.setattr(files, "HASH_LIMIT", 5)
    assert "are not hashed" in sha256(at_root, "file").reason


def test_no_descriptor_is_left_open(at_root: LocalWorld) -> None:
    before = len(os.listdir("/dev/fd"))
    for path in ("file", "sub/file", "absent", "escape", "fifo", "sub"):
        exists(at_root, path)
        sha256(at_root, path)
    assert len(os.listdir("/dev/fd")) == before


def test_a_process_out_of_descriptors_finds_nothing_out(at_root: LocalWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(beneath, "_open_beneath", exhausted)
    with pytest.raises(OSError, match="Too many open files"):
        exists(at_root, "file")


def test_the_default_roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGENTOS_EVIDENCE_ROOTS", raising=False)
    settings = load_settings(artifact_dir=tmp_path / "artifacts")
    assert {tmp_path, Path("/tmp"), tmp_path / "artifacts"} <= set(default_roots(settings))
    monkeypatch.setenv("AGENTOS_EVIDENCE_ROOTS", f"{tmp_path}/a{os.pathsep}{tmp_path}/b")
    settings = load_settings(artifact_dir=tmp_path / "artifacts")
    assert default_roots(settings) == (tmp_path / "a", tmp_path / "b", tmp_path / "artifacts")
    settings = load_settings(artifacts="s3://bucket/prefix")
    assert default_roots(settings) == (tmp_path / "a", tmp_path / "b")
