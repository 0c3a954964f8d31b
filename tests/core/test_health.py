"""Where the health port listens: on every address of the host, of both families, or on the one that is named."""

import http.client
import os
import socket
import subprocess
import sys
from asyncio import to_thread

import pytest

from agentos.core.health import HealthServer, Verdict
from agentos.core.metrics.figures import Figures
from agentos.store.errors import ConfigInvalid

HAS_IPV6 = socket.has_dualstack_ipv6()


async def ready() -> Verdict:
    return Verdict()


def server(host: str | None = None) -> HealthServer:
    return HealthServer(Verdict, ready, Figures((), lambda: iter(())), host)


def get(host: str, port: int) -> int:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("host", [None, "::"])
@pytest.mark.parametrize("asked", ["127.0.0.1", "::1"])
async def test_both_families_are_answered(host: str | None, asked: str) -> None:
    if not HAS_IPV6:
        pytest.skip("this host has no IPv6")
    async with server(host).listening(0) as port:
        assert await to_thread(get, asked, port) == 200


async def test_a_host_without_ipv6_is_answered_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    async with server().listening(0) as port:
        assert await to_thread(get, "127.0.0.1", port) == 200


@pytest.mark.parametrize(("host", "other"), [("127.0.0.1", "::1"), ("::1", "127.0.0.1")])
async def test_an_address_that_is_named_is_the_only_one_and_the_healthcheck_asks_it(host: str, other: str) -> None:
    if not HAS_IPV6:
        pytest.skip("this host has no IPv6")
    async with server(host).listening(0) as port:
        assert await to_thread(get, host, port) == 200
        with pytest.raises(OSError, match="refused"):
            await to_thread(get, other, port)
        asked = await to_thread(
            subprocess.run, [sys.executable, "-m", "agentos.coordinator", "--healthcheck"],
            env={**os.environ, "AGENTOS_HEALTH_HOST": host, "AGENTOS_HEALTH_PORT": str(port)}, check=False,
            capture_output=True, text=True,
        )  # fmt: skip
    assert asked.returncode == 0, asked.stderr


async def test_an_address_of_another_host_and_a_taken_port_are_told_apart() -> None:
    with pytest.raises(ConfigInvalid, match=r"AGENTOS_HEALTH_HOST 192\.0\.2\.1") as elsewhere:
        async with server("192.0.2.1").listening(0):
            pass
    assert "an address of this host" in str(elsewhere.value.hint)
    async with server().listening(0) as port:
        with pytest.raises(ConfigInvalid, match=f"--health-port {port}") as taken:
            async with server().listening(port):
                pass
    assert "free port" in str(taken.value.hint)
