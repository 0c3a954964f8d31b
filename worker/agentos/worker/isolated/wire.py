"""What goes between a worker and the process of an isolated handler: JSON with its length, and errors by name.

Nothing is unpickled on either side: an error names a class that is already imported, and its fields are JSON.
"""

import asyncio
import struct
import sys
from typing import Any

from agentos.store.canonical import canonical, loads

Message = dict[str, Any]

LIMIT = 64 * 1024 * 1024
"""Bytes of one message."""
_LENGTH = struct.Struct(">Q")


class Channel:
    """One end. `send` from the loop's thread; messages arrive in the order in which they were sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, message: Message, what: str = "message") -> None:
        """Raises InvalidValue, ValueTooLarge: if JSON cannot hold it; nothing was sent then."""
        body = canonical(message, limit=LIMIT, what=what)
        if not self._writer.is_closing():
            self._writer.write(_LENGTH.pack(len(body)) + body)

    async def receive(self) -> Message | None:
        """The next message; None: the other side is gone, or says what is none."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if length > LIMIT:
                return None
            message = loads(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    async def flush(self) -> None:
        """Until the other side's buffer has taken what was sent."""
        transport = self._writer.transport
        transport.set_write_buffer_limits(high=0)
        await self._writer.drain()

    def close(self) -> None:
        """No more."""
        self._writer.close()


def error_as_json(exc: BaseException) -> Message:
    """The class by its name, and what JSON can hold of its fields."""
    kept = {name: value for name, value in vars(exc).items() if isinstance(value, str | int | float | None)}
    args = [each if isinstance(each, str | int | float | bool | None) else repr(each)[:2000] for each in exc.args]
    return {"module": type(exc).__module__, "name": type(exc).__qualname__, "args": args, "fields": kept}


def error_from_json(said: Message) -> Exception:
    """An exception of the same class where this process knows it, else one of the same name."""
    found: Any = sys.modules.get(said["module"])
    for part in said["name"].split("."):
        found = getattr(found, part, None)
    if isinstance(found, type) and issubclass(found, Exception):
        try:
            made = found(*said["args"]) if said["module"] == "builtins" else found.__new__(found, *said["args"])
            made.args = tuple(said["args"])
            vars(made).update(said["fields"])
            str(made)
        except Exception:  # a class with ideas of its own
            found = None
        else:
            return made
    text = "; ".join(map(str, said["args"])) or said["name"]
    named: type[Exception] = type(said["name"].rpartition(".")[2], (RuntimeError,), {})
    return named(text)
