"""What a check may look at. Whoever verifies a checkpoint hands one in; nothing else reaches a check."""

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psycopg

from agentos.store.calls.checkpoints import RecordedExit
from agentos.store.settings import Settings, load_settings


class World(Protocol):
    """What a check may look at. All of it is synchronous."""

    @property
    def cwd(self) -> Path:
        """What relative paths start from; commands that run again run here."""

    @property
    def evidence_roots(self) -> Sequence[Path]:
        """The folders that evidence may look into; they may be reached through symbolic links, their content not."""

    @property
    def may_rerun(self) -> bool:
        """Whether evidence may run its command again: False on a worker that may not run shell commands."""

    def recorded_exit_code(self, command: str | None) -> RecordedExit | None:
        """The newest finished ledger call of the task before the commit, with this command if one is given."""

    def connect(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        """A connection outside any transaction, such as a pool's `connection()`; the check only reads, then rolls back.

        Its session's search_path finds unqualified tables.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalWorld:
    """The world of this process: its current directory and its evidence roots, at the time it is made."""

    recorded_exit_code: Callable[[str | None], RecordedExit | None]
    connect: Callable[[], AbstractContextManager[psycopg.Connection[Any]]]
    may_rerun: bool
    cwd: Path = field(default_factory=Path.cwd)
    evidence_roots: Sequence[Path] = field(default_factory=lambda: default_roots())  # noqa: PLW0108 - it is defined below


def default_roots(settings: Settings | None = None) -> tuple[Path, ...]:
    """AGENTOS_EVIDENCE_ROOTS, or the current directory, the system's temp folders and the artifact folder."""
    known = settings or load_settings()
    if known.evidence_roots is not None:
        return known.evidence_roots
    temporary = [Path(tempfile.gettempdir())]
    if os.name == "posix":
        temporary.append(Path("/tmp"))  # noqa: S108 - on macOS, or with TMPDIR, gettempdir() is another one
    return (Path.cwd(), *dict.fromkeys(temporary), known.artifacts)
