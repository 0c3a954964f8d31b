"""A tiny HTTP server for probes: /livez and /readyz, 200 or 503, and /metrics. No framework: it must start in no time.

It answers on the process's own event loop, so that a loop that is blocked answers nobody: the probe's timeout is the
verdict then. What it says of a loop that runs is why the process lives or is not ready, as one line of JSON.
"""

import asyncio
import contextlib
import errno
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from agentos.core.logs import get_logger
from agentos.core.metrics.figures import Figures
from agentos.core.process import monotonic
from agentos.store.calls.workers import schema_version
from agentos.store.connect import AsyncDatabase
from agentos.store.errors import ConfigInvalid, DatabaseError
from agentos.store.migrate import migrations

log = get_logger(__name__)

PATHS = ("/livez", "/readyz", "/metrics")
JSON_TYPE = "application/json"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
READ_TIMEOUT_S = 2.0
LOOK_S = 5.0
"""The schema is looked at once in so many seconds, however often probes ask, and not at all while none does."""
LOOK_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a probe: yes if there is no reason against it. `age_s`: seconds since the loop last came round."""

    reasons: tuple[str, ...] = ()
    age_s: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the answer is 200."""
        return not self.reasons

    def body(self) -> str:
        """One line of JSON: {"ok": bool, "reasons": [str], "loop_age_s": seconds, only of /livez}."""
        age = {} if self.age_s is None else {"loop_age_s": round(self.age_s, 3)}
        return json.dumps({"ok": self.ok, "reasons": list(self.reasons)} | age) + "\n"


@dataclass(slots=True)
class SchemaLook:
    """Whether the database answers with the schema of this version; what it said is kept for `LOOK_S` seconds.

    The functions of another version on the same tables are no reason against it: a rolling upgrade has both.
    """

    needed: int = field(default_factory=lambda: migrations()[-1].version)
    _reason: str | None = None
    _looked_at: float = field(default=-LOOK_S)

    async def reason(self, db: AsyncDatabase) -> str | None:
        """Why the process cannot serve; None: it can."""
        if monotonic() - self._looked_at >= LOOK_S:
            self._reason = await self._look(db)
            # A "no" is asked again at once: who waits for the database wants to know when it is back.
            self._looked_at = -LOOK_S if self._reason else monotonic()
        return self._reason

    async def _look(self, db: AsyncDatabase) -> str | None:
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                found = await db.run(schema_version())
        except (DatabaseError, TimeoutError) as error:
            return f"the database does not answer: {type(error).__name__}"
        return None if found == self.needed else f"the schema is at version {found}, this agentos needs {self.needed}"


@dataclass(frozen=True, slots=True)
class HealthServer:
    """`live`: no means restart me. `ready`: no means send me nothing. `figures`: what /metrics tells. `host`: the
    address to listen on; None: all of this host, of IPv4 and IPv6, since probes come from outside the container.
    """

    live: Callable[[], Verdict]
    ready: Callable[[], Awaitable[Verdict]]
    figures: Figures
    host: str | None = None

    @contextlib.asynccontextmanager
    async def listening(self, port: int) -> AsyncIterator[int]:
        """Serve on `port` (0: any) for the block; yields the port. Raises ConfigInvalid: if it is taken, or the host is
        no address of this one.
        """
        try:
            server = await asyncio.start_server(self._answer, sock=_listen(self.host, port))
        except OSError as exc:
            where = f"--health-port {port}" + (f", AGENTOS_HEALTH_HOST {self.host}" if self.host else "")
            hint = "choose a free port" if exc.errno == errno.EADDRINUSE else "name an address of this host, or none"
            raise ConfigInvalid(f"{where}: {exc.strerror or exc}", hint=hint) from exc
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answered(reader, writer)
        except Exception as error:  # of a reading: the next scrape asks again, and the process goes on
            log.warning("a question was not answered", error=str(error) or repr(error), exc_info=True)
        finally:
            writer.close()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(READ_TIMEOUT_S):
                # To the end of the headers: closing with some of them unread resets the connection under the answer.
                request = await reader.readuntil(b"\r\n\r\n")
            status, kind, text = await self._response(request.split(b" ")[1:2])
            body = text.encode()
            fields = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close"
            writer.write(f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode() + body)
            await writer.drain()

    async def _response(self, path: list[bytes]) -> tuple[str, str, str]:
        """Status, content type, body."""
        if path == [b"/metrics"]:
            return "200 OK", METRICS_TYPE, await self.figures.text()
        if path == [b"/livez"]:
            verdict = self.live()
        elif path == [b"/readyz"]:
            verdict = await self.ready()
        else:
            return "404 Not Found", JSON_TYPE, Verdict(("ask /livez, /readyz or /metrics",)).body()
        return "200 OK" if verdict.ok else "503 Service Unavailable", JSON_TYPE, verdict.body()


def _listen(host: str | None, port: int) -> socket.socket:
    """One socket, so that 0 picks one port. Raises OSError."""
    if host in (None, "::") and socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:  # IPv6 is there and switched off
                raise
    if host is None:
        return socket.create_server(("0.0.0.0", port))  # noqa: S104  as above
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
