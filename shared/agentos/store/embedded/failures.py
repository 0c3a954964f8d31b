"""Operating system errors told as what they mean for the embedded database."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentos.store.errors import EmbeddedFailed

ELSEWHERE = "set AGENTOS_DATA_DIR to another folder, or use your own Postgres with --dsn or AGENTOS_DSN"
NO_SPACE = f"free some space there (a new database takes about 70 MB), {ELSEWHERE}"
NO_ACCESS = f"give this user the folder, {ELSEWHERE}"

_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ACCESS = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def explained(doing: str, path: Path) -> Iterator[None]:
    """Raises EmbeddedFailed: if the block raises OSError; it names `doing`, `path` and the fix."""
    try:
        yield
    except OSError as error:
        raise failed(f"{doing} in {path} failed: {error}", hint=_hint(error)) from error


def failed(message: str, *, hint: str | None = None, detail: str | None = None) -> EmbeddedFailed:
    """The error for `message`; without a hint, the one that fits the output of Postgres in `detail`."""
    return EmbeddedFailed(message, hint=hint or _hint_for_output(detail or ""), detail=detail)


def _hint(error: OSError) -> str:
    if error.errno in _SPACE:
        return NO_SPACE
    if error.errno in _ACCESS:
        return NO_ACCESS
    return ELSEWHERE


def _hint_for_output(output: str) -> str:
    if "No space left" in output or "File too large" in output or "quota exceeded" in output:
        return NO_SPACE
    if "Permission denied" in output or "Read-only file system" in output:
        return NO_ACCESS
    return ELSEWHERE
