"""ARTIFACT_EXISTS and FILE_SHA256. What is judged is the open file, never the name a second time."""

import hashlib
import os
import stat

from agentos.core.evidence.beneath import opened
from agentos.core.evidence.claim import Evidence
from agentos.core.evidence.verdict import Refuted
from agentos.core.evidence.wellformed import is_sha256
from agentos.core.evidence.world import World
from agentos.store.urls import local_path

HASH_LIMIT = 16 * 1024**3
"""Bytes of the largest file that is hashed."""


def artifact_exists(evidence: Evidence, world: World) -> str:
    """Why the claim holds. Raises Refuted: if it does not."""
    path = _path(evidence)
    with opened(path, cwd=world.cwd, roots=world.evidence_roots, read=False) as fd:
        found = os.fstat(fd)
    return as_claimed(evidence, _kind(found), found.st_size)


def as_claimed(evidence: Evidence, kind: str, size: int) -> str:
    """Why what was found at the claim's path is what it says. Raises Refuted: if it is not."""
    path, wanted, min_size = evidence.expected["path"], evidence.expected.get("type"), evidence.expected.get("min_size")
    if kind not in ("file", "directory") or (wanted and kind != wanted):
        raise Refuted(f"{path} is a {kind}, expected a {wanted or 'file or directory'}")
    if min_size is not None:
        if kind != "file":
            raise Refuted(f"{path} is a {kind}, which has no size to be at least {min_size} bytes")
        if size < min_size:
            raise Refuted(f"{path} has {size} bytes, expected at least {min_size}")
    return f"{path} is a {kind}" + (f" of {size} bytes" if kind == "file" else "")


def file_sha256(evidence: Evidence, world: World) -> str:
    """Why the claim holds. Raises Refuted: if it does not."""
    wanted_sha256(evidence)
    path = _path(evidence)
    with opened(path, cwd=world.cwd, roots=world.evidence_roots, read=True) as fd:
        actual = _sha256(fd, path)
    return same_content(evidence, actual)


def wanted_sha256(evidence: Evidence) -> str:
    """The digest that a FILE_SHA256 claim names, in small letters. Raises Refuted: if it is none."""
    wanted = str(evidence.expected["sha256"]).lower()
    if not is_sha256(wanted):
        raise Refuted(f"the expected {wanted[:80]!r} is not a SHA-256 (64 hexadecimal digits)")
    return wanted


def same_content(evidence: Evidence, actual: str) -> str:
    """Why the content that was found is the one claimed. Raises Refuted: if it is not."""
    path, wanted = evidence.expected["path"], wanted_sha256(evidence)
    if actual != wanted:
        raise Refuted(f"sha256 of {path} is {actual[:12]}…, expected {wanted[:12]}…")
    return f"sha256 of {path} is {actual[:12]}…"


def _path(evidence: Evidence) -> str:
    try:
        return local_path(evidence.expected["path"])
    except ValueError as error:
        raise Refuted(f"{evidence.expected['path'][:200]} {error}") from None


def _sha256(fd: int, path: str) -> str:
    before = os.fstat(fd)
    if not stat.S_ISREG(before.st_mode):
        raise Refuted(f"{path} is a {_kind(before)}, expected a file")
    if before.st_size > HASH_LIMIT:
        raise Refuted(f"{path} has {before.st_size:,} bytes; files of more than {HASH_LIMIT:,} are not hashed")
    try:
        with open(fd, "rb", buffering=0, closefd=False) as file:
            digest = hashlib.file_digest(file, "sha256")
    except OSError as error:
        raise Refuted(f"{path} cannot be read: {error.strerror}") from None
    after = os.fstat(fd)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise Refuted(f"{path} changed while it was read")
    return digest.hexdigest()


def _kind(found: os.stat_result) -> str:
    return next((name for test, name in _KINDS if test(found.st_mode)), "special file")


_KINDS = (
    (stat.S_ISREG, "file"),
    (stat.S_ISDIR, "directory"),
    (stat.S_ISLNK, "symbolic link"),
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISSOCK, "socket"),
)
