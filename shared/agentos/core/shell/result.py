"""What a command left behind: its exit code and the end of what it said."""

from dataclasses import asdict, dataclass
from typing import Any

OUTPUT_LIMIT = 64 * 1024
"""Bytes kept of stdout and of stderr each, unless a call says otherwise."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended.

    `exit_code` follows the shell: 127 not found, 126 not executable, 128 + n killed by signal n. `stdout` and `stderr`
    are text that JSON in Postgres can hold (what is not UTF-8, and NUL, became U+FFFD). `duration_s` is in seconds.
    `truncated` is the number of bytes dropped from the front of both together; 0 means that the output is whole.
    """

    exit_code: int
    stdout: str
    stderr: str
    duration_s: float
    truncated: int

    def as_dict(self) -> dict[str, Any]:
        """The result as the ledger records it: exit_code, stdout, stderr, duration_s, truncated."""
        return asdict(self)


class Tail:
    """The last `limit` bytes of a stream; counts the rest."""

    __slots__ = ("_data", "_limit", "_seen")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()
        self._seen = 0

    def feed(self, chunk: bytes) -> None:
        self._seen += len(chunk)
        self._data += chunk
        if len(self._data) > 2 * self._limit:
            del self._data[: -self._limit or None]

    @property
    def dropped(self) -> int:
        return max(0, self._seen - self._limit)

    def text(self) -> str:
        kept = bytes(self._data[-self._limit :]) if self._limit else b""
        if self.dropped:
            kept = _from_character_start(kept)
        return kept.decode("utf-8", errors="replace").replace("\x00", "\ufffd")


def _from_character_start(data: bytes) -> bytes:
    """`data` without the up to three bytes of a character that was cut in two."""
    for skip in range(min(4, len(data))):
        if data[skip] & 0xC0 != 0x80:
            return data[skip:]
    return data
