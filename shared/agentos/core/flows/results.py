"""A tool's result as it is recorded: always a dict, always storable; what is not is recorded as finished with why."""

from dataclasses import dataclass
from typing import Any

from agentos.store import errors
from agentos.store.canonical import canonical_text
from agentos.store.errors import InvalidInput, InvalidValue, ValueTooLarge
from agentos.store.redact import redact

_REFUSALS: dict[str, type[InvalidInput]] = {"InvalidValue": InvalidValue, "ValueTooLarge": ValueTooLarge}
_SHOWN_ERROR = 4000
_INT4 = 2**31


@dataclass(frozen=True, slots=True)
class Packed:
    """`text`: canonical JSON of the record. `refusal`: the error to raise once it is recorded."""

    text: str
    exit_code: int | None
    refusal: InvalidInput | None


def pack(result: Any) -> Packed:
    """The record of `result`: a dict as it is, anything else as {"result": …}, what cannot be stored as its reason."""
    record = result if isinstance(result, dict) else {"result": result}
    exit_code = record.get("exit_code")
    known = isinstance(exit_code, int) and not isinstance(exit_code, bool) and -_INT4 <= exit_code < _INT4
    code = exit_code if known else None
    try:
        return Packed(canonical_text(record, what="the tool's result"), code, None)
    except (InvalidValue, ValueTooLarge) as refusal:
        reason = {"unstorable": refusal.message, "error": type(refusal).__name__, **_size(record)}
        return Packed(canonical_text(reason), code, refusal)


def refusal_in(record: Any) -> errors.InvalidInput | None:
    """The error that a record made by `pack` of an unstorable result stands for."""
    if not isinstance(record, dict) or not {"unstorable", "error"} <= record.keys() <= {"unstorable", "error", "size"}:
        return None
    refused = _REFUSALS.get(record["error"])
    return refused(f"{record['unstorable']} (recorded as finished)") if refused else None


def _size(record: dict[Any, Any]) -> dict[str, int]:
    """The characters or bytes of its largest parts: what makes a result too large is nearly always one of these."""
    size = sum(len(value) for value in record.values() if isinstance(value, str | bytes | bytearray))
    return {"size": size} if size else {}


def message_of(exc: BaseException) -> str:
    """Type and text of an exception as Postgres can hold them, secrets left out."""
    text = str(redact(f"{type(exc).__name__}: {exc}"))[:_SHOWN_ERROR]
    return text.encode("utf-8", errors="replace").decode().replace("\x00", "\ufffd")
