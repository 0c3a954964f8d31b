"""Large values in parts: what has not changed since the last snapshot is not stored again.

A snapshot above `WHOLE` bytes is stored as `{"$parts": skeleton}`. In the skeleton a value of `PART` bytes or more is
`{"$blob": sha256}`, and a long list is cut into groups, `{"$list": sha256}` each, which stay the same while the list
grows at its end. A part may have parts of its own. An object that only looks like one of these is kept as
`{"$dict": {...}}`. Hashes are those of the parts' canonical bytes, so the same message is the same part everywhere.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from agentos.store.canonical import canonical, loads

WHOLE = 64 * 1024
"""Bytes of canonical JSON up to which a snapshot is stored whole."""
WHOLE_REQUEST = 2 * 1024
"""The same of a model request: the next one of a conversation holds it again."""
PART = 512
"""Bytes of canonical JSON from which a value is a part of its own."""
GROUP = 32
"""Elements of a list that make a part together."""
LIMIT = 8 * 1024 * 1024
_MARKS = ("$parts", "$blob", "$list", "$dict")


@dataclass(frozen=True, slots=True)
class Parted:
    """A value in parts: `text` is the stored JSON, `parts` the bodies by their hashes."""

    text: str
    parts: dict[str, bytes]


def part(text: str) -> Parted | None:
    """The stored form of a canonical JSON text; None: it is stored as it is, being small."""
    if len(text) <= WHOLE and not text.startswith('{"$parts":'):
        return None
    parts: dict[str, bytes] = {}
    skeleton = _inside(loads(text), parts)
    return Parted(canonical({"$parts": skeleton}, limit=2 * LIMIT, what="snapshot").decode(), parts)


def part_request(value: Any) -> Parted:
    """The stored form of a model request: whole while it is small, else each message and long text is a part."""
    parts: dict[str, bytes] = {}
    text = canonical(value, limit=LIMIT, what="prompt").decode()
    if len(text) > WHOLE_REQUEST or text.startswith('{"$parts":'):
        text = canonical({"$parts": _split(value, parts)}, limit=2 * LIMIT, what="prompt").decode()
    return Parted(text, parts)


def is_parted(text: str) -> bool:
    """Whether a stored text names parts."""
    return text.startswith('{"$parts":')


def missing(text: str, known: Mapping[str, bytes]) -> set[str]:
    """Hashes of the parts that are needed to join a stored text, and not known yet."""
    return {found for found in _named(loads(text), known) if found not in known}


def join(text: str, known: Mapping[str, bytes]) -> str:
    """The canonical text that was parted. Every part is known."""
    return canonical(_joined(loads(text)["$parts"], known), limit=2 * LIMIT, what="snapshot").decode()


def _split(value: Any, parts: dict[str, bytes]) -> Any:
    small = _inside(value, parts)
    if isinstance(value, list) or not isinstance(value, dict | str):
        return small
    body = canonical(small, limit=2 * LIMIT)
    return {"$blob": _kept(body, parts)} if len(body) >= PART else small


def _inside(value: Any, parts: dict[str, bytes]) -> Any:
    if isinstance(value, dict):
        fields = {name: _split(each, parts) for name, each in value.items()}
        return {"$dict": fields} if len(fields) == 1 and next(iter(fields)) in _MARKS else fields
    if isinstance(value, list):
        return _grouped([_split(each, parts) for each in value], parts)
    return value


def _grouped(elements: list[Any], parts: dict[str, bytes]) -> list[Any]:
    while len(elements) > 2 * GROUP:
        whole = len(elements) // GROUP * GROUP
        groups = [elements[at : at + GROUP] for at in range(0, whole, GROUP)]
        elements = [*({"$list": _kept(canonical(each, limit=2 * LIMIT), parts)} for each in groups), *elements[whole:]]
    return elements


def _kept(body: bytes, parts: dict[str, bytes]) -> str:
    name = sha256(body).hexdigest()
    parts[name] = body
    return name


def _mark(value: Any) -> tuple[str, Any] | None:
    if isinstance(value, dict) and len(value) == 1:
        ((name, inner),) = value.items()
        if name in _MARKS:
            return name, inner
    return None


def _named(value: Any, known: Mapping[str, bytes]) -> Iterator[str]:
    match _mark(value):
        case (("$blob" | "$list"), str(name)):
            yield name
            if name in known:
                yield from _named(loads(known[name]), known)
            return
        case ("$parts", skeleton):
            yield from _named(skeleton, known)
            return
        case (_, fields):
            value = fields
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _named(each, known)


def _joined(value: Any, known: Mapping[str, bytes]) -> Any:
    match _mark(value):
        case ("$blob", name):
            return _joined(loads(known[name]), known)
        case ("$dict", fields):
            return {name: _joined(each, known) for name, each in fields.items()}
    if isinstance(value, dict):
        return {name: _joined(each, known) for name, each in value.items()}
    return list(_elements(value, known)) if isinstance(value, list) else value


def _elements(elements: list[Any], known: Mapping[str, bytes]) -> Iterator[Any]:
    for each in elements:
        match _mark(each):
            case ("$list", name):
                yield from _elements(loads(known[name]), known)
            case _:
                yield _joined(each, known)
