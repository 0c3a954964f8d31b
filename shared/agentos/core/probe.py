"""`--healthcheck`: asks the process of this container whether it lives, for images that have no shell and no curl.

Nothing of ours is imported: it runs every few seconds, and the drivers cost most of a second.
"""

import os
import sys
from collections.abc import Sequence

TIMEOUT_S = 5.0
HEALTHY, UNHEALTHY = 0, 1
VARIABLE = "AGENTOS_HEALTH_PORT"
HOST_VARIABLE = "AGENTOS_HEALTH_HOST"
EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104  whoever listens there answers on the loopback address


def healthcheck(argv: Sequence[str]) -> int:
    """GET /livez (with `--ready`: /readyz) on the loopback address, or the one that AGENTOS_HEALTH_HOST names, at
    `--health-port` or AGENTOS_HEALTH_PORT.

    Prints the answer. Returns 0 if it is 200, else 1: what Docker's HEALTHCHECK and an exec probe understand.
    """
    path = "/readyz" if "--ready" in argv else "/livez"
    port = _port(argv)
    if not port.isdecimal() or not 0 < int(port) < 65536:
        print(f"no port to ask. Fix: --health-port PORT or {VARIABLE}, the same as the process has", file=sys.stderr)
        return UNHEALTHY
    named = os.environ.get(HOST_VARIABLE, "").strip()
    host = "127.0.0.1" if named in EVERYWHERE else named
    import http.client  # noqa: PLC0415  start-up: a process that serves never asks

    connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        print(answer.read().decode(errors="replace").strip())
        return HEALTHY if answer.status == 200 else UNHEALTHY
    except (OSError, http.client.HTTPException) as error:
        print(f"{host} port {port} {path} does not answer: {error or type(error).__name__}", file=sys.stderr)
        return UNHEALTHY
    finally:
        connection.close()


def _port(argv: Sequence[str]) -> str:
    for at, each in enumerate(argv):
        if each.startswith("--health-port="):
            return each.partition("=")[2]
        if each == "--health-port" and at + 1 < len(argv):
            return argv[at + 1]
    return os.environ.get(VARIABLE, "")
