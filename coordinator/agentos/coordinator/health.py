"""`/live` and `/ready` for whoever restarts containers: the smallest HTTP that a probe understands."""

import asyncio
import json
import socket
import time
from dataclasses import dataclass, field
from typing import Any

LIVE_S = 120.0
"""Longer than one database call may take (60 s, and 10 s to connect): a database that hangs is no reason to restart."""
REQUEST_S = 5.0


@dataclass(slots=True)
class Pulse:
    """What is known of the process; the loops write it, probes read it. Times are of the monotonic clock."""

    looped_at: float = field(default_factory=time.monotonic)
    database: bool = False
    leading: bool = False

    def loop(self, *, database: bool, leading: bool) -> None:
        """A loop came round."""
        self.looped_at, self.database, self.leading = time.monotonic(), database, leading


def answer(pulse: Pulse, path: str) -> tuple[int, dict[str, Any]]:
    """Status and body for a path."""
    age_s = round(time.monotonic() - pulse.looped_at, 3)
    match path:
        case "/live":
            return (200 if age_s < LIVE_S else 503), {"loop_age_s": age_s}
        case "/ready":
            return (200 if pulse.database else 503), {"database": pulse.database, "leading": pulse.leading}
        case _:
            return 404, {"error": "only /live and /ready are here"}


async def serve_health(pulse: Pulse, port: int) -> asyncio.Server:
    """Listen on all interfaces (a probe comes from outside the container); port 0 picks one."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                status, body = answer(pulse, await _path(reader))
                writer.write(_response(status, body))
                await writer.drain()
        except (OSError, ValueError, asyncio.IncompleteReadError):
            return  # a probe that hangs up or does not speak HTTP gets nothing
        finally:
            writer.close()

    return await asyncio.start_server(handle, sock=_listen(port))


def _listen(port: int) -> socket.socket:
    """One socket for both protocols where there are two: with port 0 they would get a port each."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


async def _path(reader: asyncio.StreamReader) -> str:
    request = await reader.readuntil(b"\r\n")
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return request.decode("latin-1").split(" ")[1].partition("?")[0]


def _response(status: int, body: dict[str, Any]) -> bytes:
    phrase = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}[status]
    data = json.dumps(body).encode() + b"\n"
    head = f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + data
