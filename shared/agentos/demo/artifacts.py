"""Files that work items produce, written whole or not at all, and the evidence that they are there."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentos.core.evidence import Evidence, EvidenceType


def write(path: Path, text: str) -> dict[str, Any]:
    """Replace the file by `text`; what a ledger should know of it."""
    data = text.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(data)
    unfinished.replace(path)
    return {"exit_code": 0, "path": str(path), "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def is_whole(artifact: Mapping[str, Any]) -> bool:
    """Whether the file is there with the content that `write` told."""
    try:
        found = hashlib.sha256(Path(artifact["path"]).read_bytes()).hexdigest()
    except OSError:
        return False
    return found == str(artifact["sha256"])


def corrupt(path: Path) -> None:
    """Change the file behind everybody's back: one byte, same size."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x20
    path.write_bytes(data)


def produced(artifact: Mapping[str, Any]) -> list[Evidence]:
    """What must hold for the recorded call to be replayed: the file as it was written."""
    return [content(artifact)]


def content(artifact: Mapping[str, Any]) -> Evidence:
    """FILE_SHA256: the file has that content."""
    expected = {"path": artifact["path"], "sha256": artifact["sha256"]}
    return Evidence(EvidenceType.FILE_SHA256, f"content of {Path(artifact['path']).name}", expected)


def existence(artifact: Mapping[str, Any]) -> Evidence:
    """ARTIFACT_EXISTS: there is a file of at least that size."""
    expected = {"path": artifact["path"], "type": "file", "min_size": artifact["bytes"]}
    return Evidence(EvidenceType.ARTIFACT_EXISTS, f"{Path(artifact['path']).name} exists", expected)


def exit_of(command: str, result: Mapping[str, Any]) -> Evidence:
    """COMMAND_EXIT: the ledger recorded that exit code for that command."""
    expected = {"exit_code": result["exit_code"]}
    return Evidence(EvidenceType.COMMAND_EXIT, f"exit of {command}", expected, {"command": command})
