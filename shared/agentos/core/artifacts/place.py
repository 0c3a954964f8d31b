"""Where an artifact is, told by its content alone, and which artifact somebody means."""

from collections.abc import Mapping
from typing import Any

from agentos.core.evidence import Evidence
from agentos.core.evidence.wellformed import is_sha256
from agentos.store.errors import InvalidArtifact


def key_of(sha256: str) -> str:
    """Below the store: `sha256/ab/abcd...`, so that no folder gets too many entries."""
    return f"sha256/{sha256[:2]}/{sha256}"


def digest_of(artifact: Evidence | Mapping[str, Any] | str) -> str:
    """The SHA-256 of the artifact meant: by its evidence, that as JSON (out of a snapshot), or the digest itself.

    Raises InvalidArtifact: if it is none of them.
    """
    if isinstance(artifact, Evidence):
        artifact = artifact.as_json()
    if isinstance(artifact, Mapping):
        expected = artifact.get("expected")
        artifact = str(expected.get("sha256")) if isinstance(expected, Mapping) else "no evidence of a file's content"
    if not is_sha256(str(artifact)):
        raise InvalidArtifact(
            f"{str(artifact)[:80]!r} names no artifact",
            hint="pass what ctx.artifact returned, its as_json() out of the snapshot, or its SHA-256",
        )
    return artifact.lower()
