"""The installed distributions, and whether their files are what their RECORD says."""

import base64
import functools
import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import Distribution, PackagePath, distributions
from pathlib import Path
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SHOWN = 20
"""Files that differ which are named; all are counted."""


@dataclass(frozen=True, slots=True)
class Installed:
    """One distribution. `files`: those that RECORD gives a hash for. `site`: the folder it is installed in."""

    name: str
    version: str
    site: str
    files: int
    about: str
    licence: str

    def as_json(self) -> dict[str, Any]:
        """As the payload of a work item."""
        return asdict(self)


def sites() -> list[str]:
    """The folders of installed distributions on this process's path, each once."""
    found = (Path(entry).resolve() for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages"))
    return [str(site) for site in dict.fromkeys(found)]


def installed(limit: int | None = None) -> list[Installed]:
    """Every distribution that can be imported here, those with the most files first; at most `limit`."""
    first_of_a_name: dict[str, Distribution] = {}
    for each in distributions(path=sites()):
        if name := each.metadata["Name"]:  # without one it is what is left of a broken uninstall
            first_of_a_name.setdefault(normalised(name), each)
    listed = [_described(name, each) for name, each in first_of_a_name.items()]
    return sorted(listed, key=lambda one: (-one.files, one.name))[:limit]


def _described(name: str, found: Distribution) -> Installed:
    about = " ".join((found.metadata["Summary"] or "").split())[:200]
    site = str(Path(str(found.locate_file(""))).resolve())
    return Installed(name, found.version or "", site, len(_hashed(found)), about, _licence(found))


def _licence(found: Distribution) -> str:
    fields = found.metadata
    if expression := fields["License-Expression"]:
        return " ".join(expression.split())
    for line in fields.get_all("Classifier") or []:
        if line.startswith("License ::"):
            return str(line.rsplit("::", 1)[-1].strip())
    text = " ".join((fields["License"] or "").split())
    return text if 0 < len(text) <= 40 else "no licence named"


def _hashed(found: Distribution) -> tuple[PackagePath, ...]:
    return tuple(file for file in found.files or () if file.hash is not None)


@functools.lru_cache(maxsize=64)
def _record(name: str, site: str) -> tuple[tuple[PackagePath, ...], int]:
    """The files with a hash, and how many have none (compiled files, RECORD itself)."""
    for found in distributions(name=name, path=[site]):
        hashed = _hashed(found)
        return hashed, len(found.files or ()) - len(hashed)
    return (), 0


def verify(name: str, site: str, first: int, last: int) -> dict[str, Any]:
    """Hash the files `first` to `last` (from 0, `last` not included) of RECORD and compare."""
    hashed, without_hash = _record(name, site)
    read, wrong = 0, []
    for file in hashed[first:last]:
        size, complaint = _compare(file)
        read += size
        if complaint:
            wrong.append(f"{file}: {complaint}")
    return {
        "exit_code": 1 if wrong else 0, "files": len(hashed[first:last]), "bytes": read, "without_hash": without_hash,
        "wrong": len(wrong), "shown": wrong[:SHOWN],
    }  # fmt: skip


def _compare(file: PackagePath) -> tuple[int, str | None]:
    assert file.hash is not None  # noqa: S101  only hashed files come here
    try:
        with open(file.locate(), "rb") as opened:
            digest = hashlib.file_digest(opened, file.hash.mode)
            size = opened.tell()
    except FileNotFoundError:
        return 0, "missing"
    except (OSError, ValueError) as error:
        return 0, f"cannot be checked: {error}"
    same = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode() == file.hash.value
    return size, None if same else "differs from RECORD"


def check_requirements(name: str, site: str) -> dict[str, Any]:
    """Is everything installed that it always needs? Needs with a condition (an extra, a platform) are not judged."""
    wanted = [line for found in distributions(name=name, path=[site]) for line in found.requires or ()]
    names = (_NAME.match(line) for line in wanted if ";" not in line)
    needed = sorted({normalised(each[0]) for each in names if each})
    missing = [each for each in needed if not any(distributions(name=each, path=sites()))]
    return {"exit_code": 1 if missing else 0, "needs": len(needed), "missing": missing}


def normalised(name: str) -> str:
    """The name by which all spellings of it are found."""
    return re.sub(r"[-_.]+", "-", name).lower()


def total_files(listed: Sequence[Installed]) -> int:
    """Files with a hash in all of them."""
    return sum(one.files for one in listed)
