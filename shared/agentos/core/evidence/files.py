"""ARTIFACT_EXISTS and FILE_SHA256. What is judged is the open file, never the name a second time."""

import hashlib
import os
import stat

from agentos.core.evidence.beneath import opened
from agentos.core.evidence.claim import Evidence
from agentos.core.evidence.verdict import Refuted
from agentos.core.evidence.wellformed import is_sha256
from agentos.core.evidence.world import World

HASH_LIMIT = 16 * 1024**3
"""Bytes of the largest file that is hashed."""


def artifact_exists(evidence: Evidence, world: World) -> str:
    """Why the claim holds. Raises Refuted: if it does not."""
    path, wanted = evidence.expected["path"], evidence.expected.get("type")
    min_size = evidence.expected.get("min_size")
    with opened(path, cwd=world.cwd, roots=world.evidence_roots, read=False) as fd:
        found = os.fstat(fd)
    kind = _kind(found)
    if kind not in ("file", "directory") or (wanted and kind != wanted):
        raise Refuted(f"{path} is a {kind}, expected a {wanted or 'file or directory'}")
    if min_size is not None:
        if kind != "file":
            raise Refuted(f"{path} is a {kind}, which has no size to be at least {min_size} bytes")
        if found.st_size < min_size:
            raise Refuted(f"{path} has {found.st_size} bytes, expected at least {min_size}")
    return f"{path} is a {kind}" + (f" of {found.st_size} bytes" if kind == "file" else "")


def file_sha256(evidence: Evidence, world: World) -> str:
    """Why the claim holds. Raises Refuted: if it does not."""
    path, wanted = evidence.expected["path"], evidence.expected["sha256"].lower()
    if not is_sha256(wanted):
        raise Refuted(f"the expected {wanted[:80]!r} is not a SHA-256 (64 hexadecimal digits)")
    with opened(path, cwd=world.cwd, roots=world.evidence_roots, read=True) as fd:
        actual = _sha256(fd, path)
    if actual != wanted:
        raise Refuted(f"sha256 of {path} is {actual[:12]}…, expected {wanted[:12]}…")
    return f"sha256 of {path} is {actual[:12]}…"


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
