"""Writing a file whole or not at all: beside its place, to the disk, then renamed."""

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

CHUNK = 4 * 1024 * 1024
UNFINISHED = ".unfinished-"
_FORGOTTEN_S = 86_400
"""Seconds after which what a killed process left unfinished is removed."""


def copied(source: IO[bytes], write: Callable[[bytes], object]) -> str:
    """Hand on all of `source` in pieces; the SHA-256 of what was handed on."""
    digest = hashlib.sha256()
    while chunk := source.read(CHUNK):
        digest.update(chunk)
        write(chunk)
    return digest.hexdigest()


def written(source: IO[bytes], place: Path, wanted: str) -> bool:
    """Replace `place` by the content of `source`, if that has the SHA-256 `wanted`; whether it had.

    A process that dies before the rename leaves the place as it was, and an unfinished file beside it.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = place.with_name(f"{UNFINISHED}{uuid4().hex}")
    try:
        with unfinished.open("xb") as file:
            actual = copied(source, file.write)
            file.flush()
            os.fsync(file.fileno())
        if actual != wanted:
            return False
        unfinished.replace(place)
    finally:
        unfinished.unlink(missing_ok=True)
    _to_disk(place.parent)
    return True


def remove_forgotten(folder: Path) -> None:
    """Remove what processes that were killed left unfinished in `folder` a day ago or longer."""
    for each in folder.glob(f"{UNFINISHED}*"):
        with suppress(OSError):
            if each.stat().st_mtime < time.time() - _FORGOTTEN_S:
                each.unlink()


def _to_disk(folder: Path) -> None:
    if os.name != "posix":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
