"""ARTIFACT_EXISTS and FILE_SHA256 of URLs, against a real S3-compatible server: true, false, refused, unreachable."""

import hashlib
import socket
import sys
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest
from tests.core.evidence.worlds import MakeWorld
from tests.object_store import Bucket, use

from agentos.core.evidence import Evidence, LocalWorld, Verdict, check, remote, urls
from agentos.core.evidence.world import UrlRules, default_url_rules
from agentos.store.settings import load_settings

CONTENT = b"what was made" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def rules(*prefixes: str, timeout_s: float = 20, max_bytes: int = 2**20) -> UrlRules:
    return UrlRules(prefixes, timeout_s, max_bytes)


@pytest.fixture(params=["s3", "memory"])
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a folder with `sub/file` in it."""
    if request.param == "memory":
        memory = fsspec.filesystem("memory")
        memory.pipe("/evidence/sub/file", CONTENT)
        yield "memory://evidence"
        memory.rm("/evidence", recursive=True)
    else:
        bucket: Bucket = request.getfixturevalue("bucket")
        bucket.put("evidence/sub/file", CONTENT)
        yield f"{bucket.url}/evidence"


@pytest.fixture
def world(make_world: MakeWorld, store: str) -> LocalWorld:
    return make_world(url_rules=lambda: rules(store))


def exists(world: LocalWorld, path: str, **expected: Any) -> Verdict:
    return check(Evidence("artifact_exists", "", {"path": path} | expected), world)


def sha256(world: LocalWorld, path: str, digest: str = SHA256) -> Verdict:
    return check(Evidence("file_sha256", "", {"path": path, "sha256": digest}), world)


def test_a_file_and_a_folder_behind_a_url_are_found(world: LocalWorld, store: str) -> None:
    assert exists(world, f"{store}/sub/file").reason == f"{store}/sub/file is a file of {len(CONTENT)} bytes"
    assert exists(world, f"{store}/sub/file", type="file", min_size=len(CONTENT)).holds
    assert exists(world, f"{store}/sub", type="directory").holds
    assert sha256(world, f"{store}/sub/file").holds
    assert sha256(world, f"{store.upper().split(':')[0]}:{store.split(':')[1]}/sub/file", SHA256.upper()).holds


@pytest.mark.parametrize(
    ("path", "expected", "reason"),
    [
        ("absent", {}, "does not exist"),
        ("sub", {"type": "file"}, "is a directory, expected a file"),
        ("sub/file", {"type": "directory"}, "is a file, expected a directory"),
        ("sub/file", {"min_size": 10**6}, "has 13000 bytes, expected at least 1000000"),
    ],
)
def test_what_is_not_as_claimed(
    world: LocalWorld, store: str, path: str, expected: dict[str, Any], reason: str
) -> None:
    verdict = exists(world, f"{store}/{path}", **expected)
    assert not verdict.holds
    assert reason in verdict.reason


@pytest.mark.parametrize(
    ("path", "digest", "reason"),
    [
        ("sub/file", "0" * 64, f"is {SHA256[:12]}…, expected 000000000000…"),
        ("sub/file", "abc", "is not a SHA-256"),
        ("absent", SHA256, "does not exist"),
        ("sub", SHA256, "is a directory, expected a file"),
    ],
)
def test_content_that_is_not_as_claimed(world: LocalWorld, store: str, path: str, digest: str, reason: str) -> None:
    verdict = sha256(world, f"{store}/{path}", digest)
    assert not verdict.holds
    assert reason in verdict.reason


def test_what_was_deleted_or_changed_a_moment_ago_counts(make_world: MakeWorld, bucket: Bucket) -> None:
    world, url = make_world(url_rules=lambda: rules(bucket.url)), bucket.put("file", CONTENT)
    assert sha256(world, url).holds
    assert exists(world, url).holds
    bucket.put("file", CONTENT[::-1])
    assert not sha256(world, url).holds
    bucket.client.delete_object(Bucket=bucket.name, Key="file")
    assert not exists(world, url).holds


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1/file", "http://, which is refused; known are s3://, memory://, file://"),
        ("simplecache::s3://bucket/file", "which is refused"),
        ("zip://x::s3://bucket/file", "which is refused"),
        ("s3://bucket/allowed/../other", "'..'"),
        ("s3://bucket/allowed//file", "has an empty part"),
        ("s3://id:secret@bucket/allowed/file", "has credentials in it"),
        ("s3://bucket/other/file", "below none of the allowed URLs (s3://bucket/allowed)"),
        ("s3://bucket/allowed-2/file", "below none of the allowed URLs"),
        ("s3://bucket-2/allowed/file", "below none of the allowed URLs"),
        ("memory://bucket/allowed/file", "below none of the allowed URLs"),
    ],
)
def test_a_url_that_is_not_allowed_is_refused_before_anybody_is_asked(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, url: str, reason: str
) -> None:
    monkeypatch.setattr(urls, "filesystem", lambda _: pytest.fail("it was asked"))
    world = make_world(url_rules=lambda: rules("s3://bucket/allowed"))
    for verdict in (exists(world, url), sha256(world, url)):
        assert not verdict.holds
        assert reason in verdict.reason
        assert "id:secret" not in verdict.reason


def test_a_store_that_cannot_be_reached_does_not_hold_with_the_reason(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        use(f"http://127.0.0.1:{nobody.getsockname()[1]}", monkeypatch)
        world = make_world(url_rules=lambda: rules("s3://bucket"))
        for verdict in (exists(world, "s3://bucket/file"), sha256(world, "s3://bucket/file")):
            assert not verdict.holds
            assert "s3://bucket/file could not be checked: " in verdict.reason
            assert "connect" in verdict.reason.lower()


def test_a_store_that_does_not_answer_is_waited_for_only_so_long(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        world = make_world(url_rules=lambda: rules("s3://bucket", timeout_s=0.3))
        for verdict in (exists(world, "s3://bucket/file"), sha256(world, "s3://bucket/file")):
            assert verdict.reason == ("s3://bucket/file could not be checked within 0.3 s (AGENTOS_EVIDENCE_TIMEOUT_S)")


def test_a_refused_read_is_told(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forbidding:
        def info(self, _: str) -> Any:
            raise PermissionError("Forbidden")

    monkeypatch.setattr(urls, "filesystem", lambda _: Forbidding())
    world = make_world(url_rules=lambda: rules("s3://bucket"))
    assert "may not be read by this process: PermissionError: Forbidden" in exists(world, "s3://bucket/file").reason


def test_a_file_larger_than_the_limit_is_not_read_but_may_exist(make_world: MakeWorld, store: str) -> None:
    world = make_world(url_rules=lambda: rules(store, max_bytes=len(CONTENT) - 1))
    assert "AGENTOS_EVIDENCE_MAX_MB" in sha256(world, f"{store}/sub/file").reason
    assert exists(world, f"{store}/sub/file").holds


def test_without_the_package_for_a_scheme_the_reason_says_what_to_install(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote._filesystem.cache_clear()
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"].__dict__["_registry"], "s3", raising=False)
    world = make_world(url_rules=lambda: rules("s3://bucket"))
    assert "pip install 'agentos-pool[s3]'" in exists(world, "s3://bucket/file").reason


def test_by_default_only_the_artifact_store_is_allowed() -> None:
    assert default_url_rules() == UrlRules((), 30, 2**30)
    assert default_url_rules(load_settings(artifacts="s3://b/a/", evidence_urls="s3://c")).prefixes == (
        "s3://b/a", "s3://c",
    )  # fmt: skip
