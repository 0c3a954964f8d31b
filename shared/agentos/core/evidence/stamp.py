"""Where evidence was made. A file is there on one host: a verdict from another should be able to say so."""

import socket
from pathlib import Path

from agentos.core.evidence.claim import Evidence
from agentos.core.evidence.pack import EvidencePack

MADE_ON = "made_on"
"""Key in `metadata`: {"host": …, "workspace": …}."""


def stamp(evidence: Evidence, *, host: str | None = None, workspace: Path | None = None) -> Evidence:
    """`evidence` with this host and the current directory in its metadata; one that has a stamp keeps it."""
    if MADE_ON in evidence.metadata:
        return evidence
    made_on = {"host": host or socket.gethostname(), "workspace": _storable(workspace or Path.cwd())}
    metadata = {**evidence.metadata, MADE_ON: made_on}
    return Evidence(evidence.evidence_type, evidence.description, evidence.expected, metadata)


def stamp_pack(pack: EvidencePack) -> EvidencePack:
    """`pack` with each evidence stamped. To be called when a checkpoint is committed."""
    return EvidencePack(
        [stamp(evidence) for evidence in pack.evidence_list],
        allow_partial=pack.allow_partial,
        min_verified=pack.min_verified,
    )


def elsewhere(evidence: Evidence) -> str:
    """A remark for a failed check: where the evidence was made, if not on this host. Else empty."""
    made_on = evidence.metadata.get(MADE_ON)
    here = socket.gethostname()
    if made_on is None or made_on["host"] == here:
        return ""
    return f" (made on host {made_on['host']} in {made_on['workspace']}; this is host {here})"


def _storable(path: Path) -> str:
    return str(path).encode(errors="replace").decode()
