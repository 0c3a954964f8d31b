"""Artifacts: files a task produced, kept under their content's hash where every host reaches them, with evidence."""

from agentos.core.artifacts.place import digest_of
from agentos.core.artifacts.store import ArtifactStore

__all__ = ["ArtifactStore", "digest_of"]
