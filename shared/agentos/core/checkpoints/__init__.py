"""Checkpoints: a snapshot of where the work stands, with evidence that is checked again before anybody trusts it."""

from agentos.core.checkpoints.checkpoint import Checkpoint
from agentos.core.checkpoints.manager import CheckpointManager
from agentos.core.evidence import Evidence, EvidencePack, EvidenceType

__all__ = ["Checkpoint", "CheckpointManager", "Evidence", "EvidencePack", "EvidenceType"]
