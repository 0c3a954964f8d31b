"""The engine's SQL as parts (functions, row types, views), and which of them an upgrade has to touch.

Processes of the version before work on while their functions are replaced. A function whose body alone is another is
replaced in place: no lock, no wait, and a call that is under way ends with the old body. All others stay as they are.
What cannot be done in place has everything dropped and made again, in the same transaction: calls wait for it, and one
that was under way is made again (`EngineReplaced`).
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_BEGIN = re.compile(r"^CREATE (FUNCTION|TYPE|VIEW) (agentos\.\w+)", re.MULTILINE)
_BODY = re.compile(r"\bLANGUAGE\b")


@dataclass(frozen=True, slots=True)
class Part:
    """One CREATE, with the text up to the next. `signature`: what of it cannot be replaced in place."""

    name: str
    signature: str
    text: str

    @property
    def digest(self) -> str:
        """Identifies its text."""
        return _digest(self.text)


def parts(sql: str) -> tuple[str, tuple[Part, ...]]:
    """What stands before the first CREATE (it drops everything), and the parts in order."""
    found = list(_BEGIN.finditer(sql))
    ends = [*(match.start() for match in found[1:]), len(sql)]
    cut = [_part(match, sql[match.start() : end]) for match, end in zip(found, ends, strict=True)]
    return sql[: found[0].start()], tuple(cut)


def _part(match: "re.Match[str]", text: str) -> Part:
    kind, name = match.groups()
    if kind != "FUNCTION":
        text = text[: text.index(";\n") + 2]  # what follows are comments on the next part
    fixed = _BODY.split(text, maxsplit=1)[0] if kind == "FUNCTION" else text
    return Part(name, _digest(fixed), text)


def record(of: Iterable[Part], kept: Mapping[str, list[str]] | None = None) -> str:
    """As JSON, what is remembered of applied parts: signature to name and digest. `kept`: of versions before, left."""
    return json.dumps({**(kept or {}), **{part.signature: [part.name, part.digest] for part in of}})


def in_place(applied: Mapping[str, list[str]], new: Iterable[Part]) -> str | None:
    """The SQL that brings `applied` to `new` without dropping anything; None: it takes a drop.

    A function that is no more stays: processes of the version before may call it. The next whole application drops it.
    """
    new = tuple(new)
    names, signatures = {part.name for part in new}, {part.signature for part in new}
    if any(name in names and signature not in signatures for signature, (name, _) in applied.items()):
        return None
    changed = [part for part in new if applied.get(part.signature, ["", ""])[1] != part.digest]
    text = "".join(part.text.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1) for part in changed)
    return text or None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
