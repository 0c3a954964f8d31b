"""`check`: one claim against the world. `check_pack`: all claims of a checkpoint."""

from collections.abc import Callable

from agentos.core.evidence.claim import Evidence, EvidenceType
from agentos.core.evidence.command import command_exit
from agentos.core.evidence.custom import custom
from agentos.core.evidence.files import artifact_exists, file_sha256
from agentos.core.evidence.pack import EvidencePack
from agentos.core.evidence.postgres import postgres_row
from agentos.core.evidence.stamp import elsewhere
from agentos.core.evidence.urls import url_exists, url_sha256
from agentos.core.evidence.verdict import PackVerdict, Refuted, Verdict, judge
from agentos.core.evidence.world import World
from agentos.core.process import monotonic
from agentos.store.urls import is_remote


def check(evidence: Evidence, world: World) -> Verdict:
    """Whether `evidence` holds in `world` now. A false or refused claim is a verdict with its reason.

    Raises DatabaseUnavailable: if the connection is lost, and OSError: if this process is out of memory or file
    descriptors. Nothing was found out then, and no checkpoint may be given up for it.
    """
    began = monotonic()
    try:
        holds, reason = True, _check_of(evidence)(evidence, world)
    except Refuted as refuted:
        holds, reason = False, f"{refuted}{elsewhere(evidence)}"
    return Verdict(evidence, holds, _storable(reason), took_s=monotonic() - began)


def check_pack(pack: EvidencePack, world: World) -> PackVerdict:
    """Whether `pack` holds in `world` now; every claim is checked, so that all reasons are known. Raises as `check`."""
    return judge(pack, [check(evidence, world) for evidence in pack.evidence_list])


def _storable(reason: str) -> str:
    """Without what no text column takes: a reason may quote a file's name, or what the app's own check said."""
    return reason.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def _check_of(evidence: Evidence) -> Callable[[Evidence, World], str]:
    kind = evidence.evidence_type
    return _CHECKS[kind] if isinstance(kind, EvidenceType) else custom


def _row(evidence: Evidence, world: World) -> str:
    if "db_path" not in evidence.metadata:
        return postgres_row(evidence, world)
    from agentos.core.evidence.sqlite import sqlite_row  # noqa: PLC0415  a library of 1.5 MiB that few claims need

    return sqlite_row(evidence, world)


def _exists(evidence: Evidence, world: World) -> str:
    return (url_exists if is_remote(evidence.expected["path"]) else artifact_exists)(evidence, world)


def _sha256(evidence: Evidence, world: World) -> str:
    return (url_sha256 if is_remote(evidence.expected["path"]) else file_sha256)(evidence, world)


# Each returns why the claim holds, or raises Refuted with why it does not.
_CHECKS: dict[EvidenceType, Callable[[Evidence, World], str]] = {
    EvidenceType.COMMAND_EXIT: command_exit,
    EvidenceType.ARTIFACT_EXISTS: _exists,
    EvidenceType.FILE_SHA256: _sha256,
    EvidenceType.DB_ROW: _row,
}
