"""agentos' submits, in a process of their own as the peers' are: threads, the blocking API, a connection for each."""

import time

from bench import clients
from bench.app import app
from bench.peers import protocol

WARM_UP_S = 0.05
"""So long all threads submit before the clock starts; the peers' clients have connected and enqueued once by then."""


def _submit_one() -> None:
    app.submit("noop", protocol.PAYLOAD, queue="nobody")


async def fill(_: str, count: str) -> float:
    payloads = [protocol.PAYLOAD] * int(count)
    app.submit_many("noop", payloads[:1], queue="nobody")
    began = time.perf_counter()
    app.submit_many("noop", payloads, queue="nobody")
    return time.perf_counter() - began


async def submit(_: str, threads: str, seconds: str) -> float:
    clients.threads(int(threads), _submit_one, WARM_UP_S)
    return clients.threads(int(threads), _submit_one, float(seconds))


if __name__ == "__main__":
    protocol.main({"fill": fill, "submit": submit})
