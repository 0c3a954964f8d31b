"""A small server that speaks the OpenAI protocol, or whatever else it is told to answer with."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. `hold`: wait for `release` before answering. `declared`: a false Content-Length."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hold: bool = False
    declared: int | None = None


@dataclass(slots=True)
class Endpoint:
    """The replies still to give (the last one again and again) and the requests that came."""

    base_url: str
    replies: list[Reply]
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    came: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def wait_for_requests(self, count: int) -> bool:
        """Whether `count` requests come within ten seconds each."""
        return all(self.came.acquire(timeout=10) for _ in range(count))

    def next_reply(self) -> Reply:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


def completion(text: Any = "Hello.", *, reason: str | None = "stop", **other: Any) -> Reply:
    """What a model answers."""
    document = {
        "model": "served-model",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }
    return Reply(json.dumps(document | other).encode())


def failure(status: int, message: str = "no", *, code: str = "c", **headers: str) -> Reply:
    """What an endpoint says when it does not answer."""
    body = json.dumps({"error": {"message": message, "code": code}}).encode()
    return Reply(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


@contextmanager
def serve(*replies: Reply) -> Iterator[Endpoint]:
    """An endpoint on 127.0.0.1 that gives `replies` in order."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            endpoint.requests.append((self.path, headers, json.loads(body)))
            endpoint.came.release()
            reply = endpoint.next_reply()
            if reply.hold:
                endpoint.release.wait(10)
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(reply.declared or len(reply.body)))
            self.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):  # the client gave up, as some tests want
                self.wfile.write(reply.body)

        def log_message(self, format: str, *args: Any) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_address[1]}/v1", list(replies))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.release.set()
        server.shutdown()
        thread.join()
        server.server_close()
