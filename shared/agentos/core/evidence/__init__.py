"""Evidence: claims about the outside world that can be checked again, and the checks.

`Evidence` is a well-formed claim, true or not; `check(evidence, world)` answers with a `Verdict` and its reason. All
checks only read, but for a command whose evidence asks to be run again, and all are synchronous: the async worker
calls `check_pack` in a thread.
"""

from agentos.core.evidence.check import check, check_pack
from agentos.core.evidence.claim import Evidence, EvidenceType
from agentos.core.evidence.pack import EvidencePack
from agentos.core.evidence.stamp import stamp, stamp_pack
from agentos.core.evidence.verdict import PackVerdict, Verdict
from agentos.core.evidence.world import LocalWorld, World, default_roots
from agentos.store.calls.checkpoints import RecordedExit

__all__ = [
    "Evidence",
    "EvidencePack",
    "EvidenceType",
    "LocalWorld",
    "PackVerdict",
    "RecordedExit",
    "Verdict",
    "World",
    "check",
    "check_pack",
    "default_roots",
    "stamp",
    "stamp_pack",
]
