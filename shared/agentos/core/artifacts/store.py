"""`ArtifactStore`: put a file in under its content's hash, get it out again. Blocking."""

import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from agentos.core.artifacts.local import copied, remove_forgotten, written
from agentos.core.artifacts.place import digest_of, key_of
from agentos.core.evidence import Evidence, EvidenceType
from agentos.core.evidence.remote import filesystem
from agentos.store.errors import AgentOSError, ArtifactUnavailable, InvalidArtifact
from agentos.store.redact import redact
from agentos.store.settings import load_settings
from agentos.store.urls import is_remote

_CHANGED = 3
"""Tries at a file that somebody writes to meanwhile."""


class ArtifactStore:
    """A folder, or the folder behind a URL, in which a file lies under the SHA-256 of its content.

    An artifact is there whole or not at all, and the same content is stored once. `location`: default,
    AGENTOS_ARTIFACTS.
    """

    def __init__(self, location: str | None = None) -> None:
        self.location = load_settings(artifacts=location).artifact_store

    def put(self, path: str | Path, name: str | None = None) -> Evidence:
        """Store the file; FILE_SHA256 evidence of it where it is stored, which says that it exists too.

        `name`: what people call it; default, the file's. A process that dies meanwhile leaves nothing or all of it;
        doing it again finds it there. Content that was damaged in the store is written again.
        Raises InvalidArtifact: if there is no such file, or it does not stop changing. ArtifactUnavailable: if the
        store cannot be written to.
        """
        source = Path(path)
        for _ in range(_CHANGED):
            with _opened(source) as file:
                sha256 = copied(file, len)
                size = file.tell()
                file.seek(0)
                with self._reached():
                    if self._is_there(sha256, size) or self._write(file, sha256):
                        return self._evidence(sha256, size, name or source.name)
        raise InvalidArtifact(f"{source} changed while it was stored", hint="store it when nobody writes to it")

    def get(self, artifact: Evidence | Mapping[str, Any] | str, to: str | Path) -> Path:
        """Write the artifact's content to the file `to`, whole or not at all; its path.

        A file that has that content already is left as it is.
        Raises InvalidArtifact: if nobody can tell which artifact is meant. ArtifactUnavailable: if this host's store
        does not have it whole, or cannot be reached.
        """
        sha256, target = digest_of(artifact), Path(to)
        if target.is_file() and _sha256(target) == sha256:
            return target
        with self._reached(), self._stored(sha256) as file:
            whole = written(file, target, sha256)
        if not whole:
            raise ArtifactUnavailable(
                f"the artifact {self._place(sha256)} was damaged: its content has another SHA-256",
                hint="make it again and store it: ctx.artifact writes over damaged content",
            )
        return target

    def _place(self, sha256: str) -> str:
        return f"{self.location}/{key_of(sha256)}"

    def _evidence(self, sha256: str, size: int, name: str) -> Evidence:
        expected = {"path": self._place(sha256), "sha256": sha256}
        return Evidence(EvidenceType.FILE_SHA256, name, expected, {"artifact": {"name": name, "bytes": size}})

    @contextmanager
    def _stored(self, sha256: str) -> Iterator[IO[bytes]]:
        place = self._place(sha256)
        with filesystem(place).open(place, "rb") if is_remote(place) else open(place, "rb") as file:
            yield file

    def _is_there(self, sha256: str, size: int) -> bool:
        """Whether it is stored, whole: an artifact that was damaged must not stay so because its name is taken."""
        place = self._place(sha256)
        try:
            found = filesystem(place).info(place)["size"] if is_remote(place) else Path(place).stat().st_size
            if found != size:
                return False
            with self._stored(sha256) as file:
                return copied(file, len) == sha256
        except FileNotFoundError:
            return False

    def _write(self, source: IO[bytes], sha256: str) -> bool:
        place = self._place(sha256)
        if not is_remote(place):
            whole = written(source, Path(place), sha256)
            remove_forgotten(Path(place).parent)
            return whole
        # An object store shows an object when it is committed, and not before.
        fs = filesystem(place)
        file = fs.open(place, "wb", autocommit=False)
        try:
            whole = copied(source, file.write) == sha256
            file.close()
        except BaseException:
            file.discard()
            raise
        (file.commit if whole else file.discard)()
        if not whole and place.startswith("memory:"):  # fsspec's shows a file when it is opened
            fs.rm(place)
        return whole

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (AgentOSError, MemoryError):
            raise
        except Exception as error:  # of the file system, of fsspec, of a client below it, of the network
            message = f"the artifact store {self.location}: {type(error).__name__}: {error}".splitlines()[0]
            missing = isinstance(error, ImportError)
            raise ArtifactUnavailable(
                redact(message, limit=400),
                hint="pip install 'agentos-pool[s3]'"
                if missing
                else "see that AGENTOS_ARTIFACTS names a place that this host may read and write",
            ) from error


@contextmanager
def _opened(source: Path) -> Iterator[IO[bytes]]:
    try:
        if not stat.S_ISREG(source.stat().st_mode):
            raise InvalidArtifact(f"{source} is not a regular file", hint="pack a folder into an archive first")
        file = source.open("rb")
    except OSError as error:
        raise InvalidArtifact(f"{source} cannot be read: {error.strerror}", hint="write it first") from None
    with file:
        yield file


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return copied(file, len)
