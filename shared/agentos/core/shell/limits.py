"""What one command may use. None: no limit."""

from dataclasses import dataclass, fields
from typing import Any

from agentos.store.errors import InvalidArguments

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """`memory_mb` (MiB): of each process by the kernel, which then refuses it more, and of all together by a look every
    0.4 s. `processes`: of all together, looked at as often, beside the kernel's count for users that are not root.
    `file_mb` (MiB): the largest file it may write (SIGXFSZ, exit code 153). `cpu_s`: seconds of processor of each
    process (SIGXCPU or SIGKILL, exit code 152 or 137).
    """

    memory_mb: float | None = None
    processes: int | None = None
    file_mb: float | None = None
    cpu_s: float | None = None

    def __post_init__(self) -> None:
        """Raises InvalidArguments: if one is not a number above 0."""
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
                raise InvalidArguments(
                    f"the limit {field.name} is {value!r}", hint="pass a number above 0, or leave it out"
                )

    def as_request(self) -> dict[str, int | None]:
        """As the keeper takes them: bytes, whole seconds, whole processes. No core files."""
        return {
            "memory": _whole(self.memory_mb, MIB),
            "processes": _whole(self.processes, 1),
            "file": _whole(self.file_mb, MIB),
            "cpu": _whole(self.cpu_s, 1),
            "core": 0,
        }


def _whole(value: float | None, unit: int) -> int | None:
    return None if value is None else max(1, int(value * unit))


UNLIMITED = Limits()
