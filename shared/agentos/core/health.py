"""A tiny HTTP server for probes: /live and /ready, 200 or 503, nothing else. No framework: it must start in no time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from agentos.store.errors import ConfigInvalid

READ_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class HealthServer:
    """`live`: false means restart me. `ready`: false means send me nothing. Both must answer at once."""

    live: Callable[[], bool]
    ready: Callable[[], bool]
    host: str = "0.0.0.0"  # noqa: S104  probes come from outside the container

    @contextlib.asynccontextmanager
    async def listening(self, port: int) -> AsyncIterator[int]:
        """Serve on `port` (0: any) for the block; yields the port. Raises ConfigInvalid: if it is taken."""
        try:
            server = await asyncio.start_server(self._answer, self.host, port)
        except OSError as exc:
            raise ConfigInvalid(f"--health-port {port}: {exc.strerror}", hint="choose a free port") from exc
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(READ_TIMEOUT_S):
                line = await reader.readline()
            status, body = self._response(line.split(b" ")[1:2])
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
                f"Connection: close\r\n\r\n{body}".encode()
            )
            await writer.drain()
        writer.close()

    def _response(self, path: list[bytes]) -> tuple[str, str]:
        questions = {b"/live": self.live, b"/ready": self.ready}
        question = questions.get(path[0]) if path else None
        if question is None:
            return "404 Not Found", "ask /live or /ready\n"
        return ("200 OK", "ok\n") if question() else ("503 Service Unavailable", "no\n")
