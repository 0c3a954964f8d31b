"""A site-packages folder made up for a test, and a ledger call as tools are told."""

import base64
import hashlib
from pathlib import Path

from agentos.core.app import ToolCall

FIRST = ToolCall("key-1", repair=False, execution=1)


def install(site: Path, name: str, files: dict[str, str], *, metadata: str = "") -> Path:
    """A distribution with these files and a RECORD of them; the folder of its metadata."""
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{metadata}")
    lines = [f"{info.name}/METADATA,,"]
    for path, text in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(text)}")
    (info / "RECORD").write_text("\n".join([*lines, f"{info.name}/RECORD,,"]) + "\n")
    return info
