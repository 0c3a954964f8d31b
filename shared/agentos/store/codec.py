"""Sealing content before it is stored, and opening what comes back: encryption, compression, or both.

Sealed JSON is `{"$sealed":{"by":NAME,"data":BASE64}}` wherever a JSON value may stand, a sealed body of a part is
`$sealed:NAME:` and bytes. One codec seals in a process, several can open, so that keys can be rotated. Without a codec
nothing is sealed, and asking costs a look at one variable. Hashes are always those of the open content.
"""

import binascii
import json
import os
import sys
import zlib
from base64 import b64decode, b64encode
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from agentos.store.errors import CodecFailed, ConfigInvalid, ContentSealed, InvalidValue

MARK = "$sealed"
_TEXT = '{"$sealed":'
_BODY = b"$sealed:"
VARIABLE = "AGENTOS_CODEC"


@runtime_checkable
class Codec(Protocol):
    """Seals and opens bytes. `name`: at most 64 letters, digits, `.`, `_` or `-`; stored with what it sealed, so it may
    name a key. Both methods are called from any thread.
    """

    name: str

    def encode(self, content: bytes, /) -> bytes | None:
        """The sealed form; None: leave this content as it is."""

    def decode(self, sealed: bytes, /) -> bytes:
        """What was sealed. Raises anything: if it cannot be opened."""


class Zlib:
    """Compression of content from 1 KiB on; the server compresses as well, but not what travels to it."""

    name = "zlib"

    def __init__(self, level: int = 6, smallest: int = 1024) -> None:
        self._level, self._smallest = level, smallest

    def encode(self, content: bytes, /) -> bytes | None:
        """As `Codec`."""
        sealed = zlib.compress(content, self._level) if len(content) >= self._smallest else content
        return sealed if len(sealed) * 4 < len(content) * 3 else None  # as base64 it grows by a third

    def decode(self, sealed: bytes, /) -> bytes:
        """As `Codec`."""
        return zlib.decompress(sealed)


Codecs = tuple[Codec, ...]

_codecs: Codecs | None = None
"""Of this process; the first seals. None: nobody has asked yet."""
_shows = False


def use_codec(codec: Codec | Sequence[Codec]) -> None:
    """Seal with this codec in this process, or with the first of several; the others only open.

    Raises ConfigInvalid: if it is none, its name cannot be stored, or the process has another one.
    """
    global _codecs  # noqa: PLW0603  one for each process, as the database's content is one
    found = _checked(codec, "App(codec=...)")
    if _codecs and _codecs != found:
        raise ConfigInvalid(
            f"this process seals with {_codecs[0].name!r} already, not with {found[0].name!r}",
            hint="give every App of a process the same codec object, or use AGENTOS_CODEC",
        )
    _codecs = found


def codecs() -> Codecs:
    """Those of this process, the sealing one first: given to an `App`, else named by AGENTOS_CODEC, else none."""
    global _codecs  # noqa: PLW0603  as above
    if _codecs is None:
        named = os.environ.get(VARIABLE)
        _codecs = _checked(_named(named), VARIABLE) if named else ()
    return _codecs


def show_sealed() -> None:
    """In this process content that cannot be opened is shown as sealed, instead of refused: for commands that look."""
    global _shows  # noqa: PLW0603  as above
    _shows = True


def seal(text: str) -> str:
    """JSON text as it is to be stored. Raises CodecFailed; InvalidValue: if it pretends to be sealed."""
    if text.startswith(_TEXT):
        raise InvalidValue(f"an object whose only key is {MARK!r} cannot be stored", hint="use another key")
    known = codecs()
    if not known or (sealed := _encoded(known[0], text.encode())) is None:
        return text
    return f'{_TEXT}{{"by":"{known[0].name}","data":"{b64encode(sealed).decode()}"}}}}'


def seal_optional(text: str | None) -> str | None:
    """`seal`, where there is something."""
    return None if text is None else seal(text)


def seal_body(body: bytes) -> bytes:
    """The body of a part as it is to be stored."""
    known = codecs()
    if not known or (sealed := _encoded(known[0], body)) is None:
        return body
    return b"%b%b:%b" % (_BODY, known[0].name.encode(), sealed)


def open_text(text: str) -> str:
    """Stored JSON text as it was. Raises ContentSealed."""
    if not text.startswith(_TEXT):
        return text
    found = _sealed(json.loads(text))
    return text if found is None else _decoded(*found).decode()


def open_body(body: bytes) -> bytes:
    """The stored body of a part as it was. Raises ContentSealed."""
    if not body.startswith(_BODY):
        return body
    name, _, sealed = body[len(_BODY) :].partition(b":")
    return _decoded(name.decode(), sealed)


def open_value(value: Any, decode: Any) -> Any:
    """A value in which sealed ones may stand at any depth, with those opened and read by `decode`."""
    if isinstance(value, dict):
        if (found := _sealed(value)) is not None:
            return decode(_decoded(*found).decode())
        return {name: open_value(each, decode) for name, each in value.items()}
    return [open_value(each, decode) for each in value] if isinstance(value, list) else value


def _sealed(value: dict[str, Any]) -> tuple[str, bytes] | None:
    if len(value) != 1 or not isinstance(inner := value.get(MARK), dict) or set(inner) != {"by", "data"}:
        return None
    try:
        return str(inner["by"]), b64decode(inner["data"], validate=True)
    except (binascii.Error, TypeError, ValueError):
        return None


def _encoded(codec: Codec, content: bytes) -> bytes | None:
    try:
        sealed = codec.encode(content)
    except Exception as exc:
        raise CodecFailed(
            f"the codec {codec.name!r} cannot seal: {type(exc).__name__}: {exc}", hint="nothing was stored; mend it"
        ) from exc
    if sealed is not None and not isinstance(sealed, bytes):
        raise CodecFailed(
            f"the codec {codec.name!r} returned {type(sealed).__name__}", hint="encode returns bytes, or None"
        )
    return sealed


def _decoded(name: str, sealed: bytes) -> bytes:
    codec = next((each for each in codecs() if each.name == name), None)
    if codec is None:
        if _shows:
            return f'"sealed by {name}"'.encode()
        raise ContentSealed(
            f"this content was sealed by the codec {name!r}, which this process does not have",
            hint=f"give it to App(codec=[...]), or name it in {VARIABLE}=module:object",
        )
    try:
        return codec.decode(sealed)
    except Exception as exc:
        raise ContentSealed(
            f"the codec {name!r} cannot open this content: {type(exc).__name__}: {exc}",
            hint="is it the key that sealed it? Codecs with former keys go behind the first: App(codec=[new, old])",
        ) from exc


def _checked(given: object, where: str) -> Codecs:
    found = tuple(given) if isinstance(given, Sequence) else (given,)
    for each in found:
        name = getattr(each, "name", None)
        if not isinstance(each, Codec) or not isinstance(name, str) or not _is_name(name):
            raise ConfigInvalid(
                f"{where}: {each!r:.80} is no codec",
                hint="a codec has a name (letters, digits, '.', '_', '-'), encode(bytes) and decode(bytes)",
            )
    if not found or len({each.name for each in found}) < len(found):
        raise ConfigInvalid(f"{where} has no codec, or two of one name", hint="give each key a name of its own")
    return found


def _is_name(name: str) -> bool:
    return 1 <= len(name) <= 64 and name.isascii() and name.replace(".", "").replace("_", "").replace("-", "").isalnum()


def _named(reference: str) -> object:
    module, _, attribute = reference.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(import_module(module), attribute)
    except Exception as exc:  # whatever the user's own module raises while it is imported
        raise ConfigInvalid(
            f"{VARIABLE}={reference}: {type(exc).__name__}: {exc}",
            hint=f"{VARIABLE}=module:object, importable from here",
        ) from exc
