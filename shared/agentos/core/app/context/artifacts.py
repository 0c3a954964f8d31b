"""Files that other hosts can fetch and check: the artifact store."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentos.core.app.context.bound import BlockingBound, Bound
from agentos.core.evidence import Evidence
from agentos.core.flows.artifacts import fetch_artifact, store_artifact


class Artifacts(Bound):
    """`ctx.artifact`, `ctx.fetch_artifact`."""

    async def artifact(self, path: str | Path, name: str | None = None) -> Evidence:
        """Store a file under its content's hash in AGENTOS_ARTIFACTS; evidence of it, for `ctx.checkpoint`.

        There whole or not at all; the same content is stored once, however often the handler runs again. `name`: what
        people call it. Raises InvalidArtifact: if there is no such regular file. ArtifactUnavailable: if the store
        cannot be written to. EffectInTransaction: inside `ctx.transaction()`.
        """
        return await self._run(store_artifact(self._scope, path, name))

    async def fetch_artifact(self, artifact: Evidence | Mapping[str, Any] | str, to: str | Path) -> Path:
        """Write an artifact to the file `to`, whole or not at all; its path. On any host that reaches the store.

        `artifact`: what `ctx.artifact` returned, its `as_json()` (put that into the snapshot), or its SHA-256.
        Raises InvalidArtifact, ArtifactUnavailable: if the store does not have it whole. EffectInTransaction.
        """
        return await self._run(fetch_artifact(artifact, to))


class BlockingArtifacts(BlockingBound[Artifacts]):
    """The same, blocking."""

    def artifact(self, path: str | Path, name: str | None = None) -> Evidence:
        """As `TaskContext.artifact`."""
        return self._wait(self._context.artifact(path, name))

    def fetch_artifact(self, artifact: Evidence | Mapping[str, Any] | str, to: str | Path) -> Path:
        """As `TaskContext.fetch_artifact`."""
        return self._wait(self._context.fetch_artifact(artifact, to))
