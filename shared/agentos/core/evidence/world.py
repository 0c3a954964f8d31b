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
from agentos.store.urls import is_remote


@dataclass(frozen=True, slots=True)
class UrlRules:
    """`prefixes`: normal URLs below which evidence may name files. `timeout_s`: for one check, also for one of the
    app's own. `max_bytes`: of a file that is read.
    """

    prefixes: tuple[str, ...]
    timeout_s: float
    max_bytes: int


class World(Protocol):
    """What a check may look at. All of it is synchronous."""

    @property
    def cwd(self) -> Path:
        """What relative paths start from; commands that run again run here."""

    @property
    def evidence_roots(self) -> Sequence[Path]:
        """The folders that evidence may look into; they may be reached through symbolic links, their content not."""

    def url_rules(self) -> UrlRules:
        """Which URLs evidence may name, and what a check of one may cost."""

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
    url_rules: Callable[[], UrlRules] = field(default_factory=lambda: default_url_rules)
    cwd: Path = field(default_factory=Path.cwd)
    evidence_roots: Sequence[Path] = field(default_factory=lambda: default_roots())  # noqa: PLW0108 - it is defined below


def default_roots(settings: Settings | None = None) -> tuple[Path, ...]:
    """AGENTOS_EVIDENCE_ROOTS, or the current directory, the system's temp folders and the artifact folder; and always
    the artifact store, if it is a folder.
    """
    known = settings or load_settings()
    store = () if is_remote(known.artifact_store) else (Path(known.artifact_store),)
    if known.evidence_roots is not None:
        return (*known.evidence_roots, *store)
    temporary = [Path(tempfile.gettempdir())]
    if os.name == "posix":
        temporary.append(Path("/tmp"))  # noqa: S108 - on macOS, or with TMPDIR, gettempdir() is another one
    return (Path.cwd(), *dict.fromkeys((*temporary, known.artifact_folder, *store)))


def default_url_rules(settings: Settings | None = None) -> UrlRules:
    """AGENTOS_EVIDENCE_URLS and the artifact store, if it is a URL; AGENTOS_EVIDENCE_TIMEOUT_S, _MAX_MB."""
    known = settings or load_settings()
    store = (known.artifact_store,) if is_remote(known.artifact_store) else ()
    return UrlRules((*store, *known.evidence_urls), known.evidence_timeout_s, int(known.evidence_max_mb * 1024**2))
