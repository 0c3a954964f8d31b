"""Storing and fetching a running item's artifacts. Nothing is recorded: the store itself tells what is there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentos.core.artifacts import ArtifactStore
from agentos.core.evidence import Evidence
from agentos.core.scope import ItemScope
from agentos.core.transaction import refuse_effect
from agentos.store.run import Flow, invoke


def store_artifact(scope: ItemScope, path: str | Path, name: str | None) -> Flow[Evidence]:
    """Put a file into the artifact store. Raises as `ArtifactStore.put`; EffectInTransaction."""
    refuse_effect("ctx.artifact()")
    yield from scope.may_begin()
    evidence: Evidence = yield from invoke(lambda: ArtifactStore().put(path, name))
    return evidence


def fetch_artifact(artifact: Evidence | Mapping[str, Any] | str, to: str | Path) -> Flow[Path]:
    """Get a file out of the artifact store. Raises as `ArtifactStore.get`; EffectInTransaction."""
    refuse_effect("ctx.fetch_artifact()")
    path: Path = yield from invoke(lambda: ArtifactStore().get(artifact, to))
    return path
