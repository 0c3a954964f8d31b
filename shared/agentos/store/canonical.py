"""The one JSON form of agentos: canonical bytes, their digest, and the loader that gives the value back.

`canonical` writes RFC 8785 (keys in UTF-16 order, ECMAScript numbers, no white space), with one widening: an integer
is written exactly at any size up to `MAX_INTEGER_DIGITS`, where RFC 8785 would send it through a double.

Accepted: None, bool, int, float, str, list, tuple (as an array), dict with str keys, and subclasses of these (a
`StrEnum` member is its string, an `IntEnum` member its number). Everything else is refused, never guessed at: bytes,
sets, dates, objects, NaN, Infinity, NUL (Postgres text cannot hold it), lone surrogates, cycles and more than
`MAX_DEPTH` levels.

Coming back: a float without a fraction is written as an integer (`1.0` → `1`, `-0.0` → `0`) and is loaded as an int.
Above 2**53 such an int has the shortest digits that name the float, so `float(back)` is the value, `back` need not be.
"""

import json
from hashlib import sha256
from json.encoder import encode_basestring  # in C, and escapes exactly as RFC 8785 asks
from math import isfinite
from typing import Any

from agentos.store.codec import open_value
from agentos.store.errors import InvalidInput, InvalidValue, ValueTooLarge

PAYLOAD_LIMIT = 8 * 1024 * 1024
"""Bytes of canonical JSON that one payload, snapshot, result or output may have unless a call says otherwise."""
MAX_DEPTH = 100
MAX_INTEGER_DIGITS = 4300
"""Python's own default for turning text into an int, so that everything written can be read."""

_SHORT = 2**63
_FEW, _LONG = 64, 4096
_MAX_INTEGER_BITS = 14_285  # of 10**4300 - 1
_PLAIN = "pass plain data: None, bool, int, float, str, list, or dict with str keys"
_HINTS = {
    "bytes": "encode it first, e.g. base64.b64encode(data).decode(), or store a file and its path",
    "bytearray": "encode it first, e.g. base64.b64encode(data).decode(), or store a file and its path",
    "set": "use sorted(items): a set has no order to hash",
    "frozenset": "use sorted(items): a set has no order to hash",
    "datetime": "use value.isoformat()",
    "date": "use value.isoformat()",
    "PurePath": "use str(path)",
    "Decimal": "use str(value), or float(value) if its rounding is acceptable",
    "UUID": "use str(value)",
}


def canonical(value: object, *, limit: int = PAYLOAD_LIMIT, what: str = "value") -> bytes:
    """The canonical UTF-8 bytes of `value`, at most `limit` bytes. `what` names the value in errors.

    Raises InvalidValue: if JSON in Postgres cannot hold it; the message names the place, such as $.items[3].name.
    Raises ValueTooLarge: if it needs more than `limit` bytes; found out without writing the rest.
    """
    try:
        return _write(value, limit, 0)
    except _Refused as refused:
        raise refused.error(what, limit) from None
    except RecursionError:
        raise InvalidValue(f"{what} is nested too deeply for the stack it was passed on", hint="flatten it") from None


def canonical_text(value: object, *, limit: int = PAYLOAD_LIMIT, what: str = "value") -> str:
    """`canonical` as str, for drivers that take text. `limit` counts UTF-8 bytes. Raises as `canonical`."""
    if type(value) is dict and (text := _flat(value)) is not None and len(text) <= limit:
        return text
    return canonical(value, limit=limit, what=what).decode()


def _flat(value: dict[object, object]) -> str | None:
    """A small object of ASCII texts, numbers without a fraction, true, false and null; None: it is another.

    Most payloads are such. A submit wakes with cold caches, and there the nine frames of `canonical` take 13 us.
    """
    if len(value) > _FEW:
        return None
    try:
        keys = sorted(value)  # type: ignore[type-var]  # a TypeError says so
    except TypeError:
        return None
    pieces = []
    for key in keys:
        item = value[key]
        kind = type(item)
        if type(key) is not str:
            return None
        if kind is str and len(item) < _LONG:  # type: ignore[arg-type]  # `kind is` narrows nothing
            written = encode_basestring(item)  # type: ignore[arg-type]  # as above
        elif kind is int and -_SHORT < item < _SHORT:  # type: ignore[operator]  # as above
            written = str(item)
        elif item is None:
            written = "null"
        elif kind is bool:
            written = "true" if item else "false"
        else:
            return None
        pieces.append(f"{encode_basestring(key)}:{written}")
    text = f"{{{','.join(pieces)}}}"
    return text if text.isascii() and "\\u0000" not in text else None


def digest(value: object, *, limit: int = PAYLOAD_LIMIT, what: str = "value") -> str:
    """SHA-256 of the canonical bytes, 64 hexadecimal digits. Raises as `canonical`."""
    return sha256(canonical(value, limit=limit, what=what)).hexdigest()


def loads(text: str | bytes, *, what: str = "value") -> Any:
    """The value of a JSON text (bytes: UTF-8), integers exact. Of a key given twice the last counts.

    Raises InvalidValue: if it is not JSON, is nested too deeply, or holds NaN, Infinity or a number such as 1e400.
    ContentSealed: if a codec has sealed some of it, which this process does not have.
    """
    try:
        value = _decode(text if isinstance(text, str) else text.decode())
        sealed = ('"$sealed"' if isinstance(text, str) else b'"$sealed"') in text  # type: ignore[operator]  # of its type
        return open_value(value, _decode) if sealed else value
    except RecursionError:
        raise InvalidValue(f"{what} is nested too deeply to be read as JSON", hint="flatten it") from None
    except ValueError as error:
        raise InvalidValue(f"{what} is not JSON that can be kept exactly: {error}") from None


class _Refused(Exception):
    """Travels up the value, gathering its path. `cls` is the error it ends as."""

    def __init__(self, reason: str, hint: str = _PLAIN, cls: type[InvalidInput] = InvalidValue) -> None:
        super().__init__(reason)
        self.reason, self.hint, self.cls = reason, hint, cls
        self.path: list[str] = []

    def error(self, what: str, limit: int) -> InvalidInput:
        path = "$" + "".join(reversed(self.path))
        if len(path) > 200:
            path = f"{path[:100]}…{path[-80:]}"
        if self.cls is ValueTooLarge:
            message = f"{what} is larger than its limit of {limit:,} bytes of JSON (passed at {path})"
        else:
            message = f"{what} cannot be stored: {path} {self.reason}"
        return self.cls(message, hint=self.hint)


def _write(value: object, room: int, depth: int) -> bytes:
    kind = type(value)
    if kind is str:
        out = _string(value, room)  # type: ignore[arg-type]  # `kind is` narrows nothing, but is the fast test
    elif kind is dict:
        out = _object(value, room, depth)  # type: ignore[arg-type]
    elif value is None:
        out = b"null"
    elif kind is bool:
        out = b"true" if value else b"false"
    elif kind is int:
        out = _integer(value)  # type: ignore[arg-type]
    elif kind is float:
        out = _float(value)  # type: ignore[arg-type]
    elif kind is list or kind is tuple:
        out = _array(value, room, depth)  # type: ignore[arg-type]
    else:
        out = _write(_plain(value), room, depth)
    if len(out) > room:
        raise _too_large()
    return out


def _plain(value: object) -> object:
    """The builtin that a subclass stands for; a subclass's own `__str__` or `items` is not asked."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, dict):
        return dict(dict.items(value))
    if isinstance(value, list | tuple):
        return list(value)
    hint = next((_HINTS[cls.__name__] for cls in type(value).__mro__ if cls.__name__ in _HINTS), _PLAIN)
    raise _Refused(f"is of type {type(value).__name__}, which JSON does not have", hint)


def _string(value: str, room: int) -> bytes:
    if len(value) > room:
        raise _too_large()
    if "\x00" in value:
        raise _Refused("contains the NUL character, which Postgres cannot hold", "remove or replace U+0000")
    try:
        return encode_basestring(value).encode()
    except UnicodeEncodeError:
        raise _Refused(
            "contains a lone surrogate, which is no character",
            "decode the bytes with errors='replace' (surrogateescape makes such strings, e.g. of file names)",
        ) from None


def _integer(value: int) -> bytes:
    bits = value.bit_length()
    if bits >= _MAX_INTEGER_BITS and (bits > _MAX_INTEGER_BITS or abs(value) >= 10**MAX_INTEGER_DIGITS):
        raise _Refused(f"is an integer of more than {MAX_INTEGER_DIGITS} digits", "store it as a string: hex(value)")
    return b"%d" % value


def _float(value: float) -> bytes:
    if not isfinite(value):
        raise _Refused(f"is {value}, which JSON does not have", "use None")
    text = repr(value)
    if "e" in text:
        return _with_exponent(text)
    if text.endswith(".0"):
        text = text[:-2]
    return b"0" if text == "-0" else text.encode()


def _with_exponent(text: str) -> bytes:
    """ECMAScript's form of a `repr` with an exponent: plain from 1e-6 up to 1e21, else with the shortest exponent."""
    mantissa, _, exponent = text.partition("e")
    sign = "-" if mantissa[0] == "-" else ""
    digits = mantissa.lstrip("-").replace(".", "")
    power = int(exponent)
    if 16 <= power < 21:
        return f"{sign}{digits:0<{power + 1}}".encode()
    if -7 < power < 0:
        return f"{sign}0.{'0' * (-power - 1)}{digits}".encode()
    return f"{sign}{mantissa.lstrip('-').removesuffix('.0')}e{power:+d}".encode()


def _array(value: list[object] | tuple[object, ...], room: int, depth: int) -> bytes:
    _check_depth(depth)
    room -= 1  # two brackets, and one comma less than items
    if 2 * len(value) > room:
        raise _too_large()
    pieces = []
    for index, item in enumerate(value):
        try:
            piece = _write(item, room, depth + 1)
        except _Refused as refused:
            refused.path.append(f"[{index}]")
            raise
        room -= len(piece) + 1
        pieces.append(piece)
    return b"[" + b",".join(pieces) + b"]"


def _object(value: dict[object, object], room: int, depth: int) -> bytes:
    _check_depth(depth)
    room -= 1
    if 5 * len(value) > room:
        raise _too_large()  # before millions of keys are sorted
    pieces = []
    for key in _sorted_keys(value):
        try:
            name = _string(key, room)
            piece = name + b":" + _write(value[key], room - len(name) - 1, depth + 1)
        except _Refused as refused:
            refused.path.append(f".{key}" if key.isidentifier() and key.isascii() else f"[{key[:40]!a}]")
            raise
        room -= len(piece) + 1
        pieces.append(piece)
    return b"{" + b",".join(pieces) + b"}"


def _sorted_keys(value: dict[object, object]) -> list[str]:
    try:
        if all(map(str.isascii, value)):  # type: ignore[arg-type]  # a key that is no str raises TypeError: the fast check
            return sorted(value)  # type: ignore[arg-type]
        return sorted(value, key=_utf_16)  # type: ignore[arg-type]
    except TypeError:
        kind = next(type(key).__name__ for key in value if not isinstance(key, str))
        raise _Refused(f"has a key of type {kind}; keys are strings", "use str(key)") from None


def _utf_16(key: str) -> bytes:
    return str.encode(key, "utf-16-be", "surrogatepass")


def _check_depth(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise _Refused(f"is nested deeper than {MAX_DEPTH} levels, or contains itself", "flatten it")


def _too_large() -> _Refused:
    return _Refused("", "keep large data in a file or table, and store its path and SHA-256 here", ValueTooLarge)


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"the number {text[:40]} is beyond the range of a float")
    return number


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not a JSON number")


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant)


def _decode(text: str) -> Any:
    """What `decode` of the decoder gives, without looking for white space around it: there is none nearly always, and
    the look takes longer than a small value.
    """
    try:
        value, end = _DECODER.raw_decode(text)
    except json.JSONDecodeError:
        return _DECODER.decode(text)
    return value if end == len(text) else _DECODER.decode(text)
