"""An S3-compatible server in a thread of the test process: moto's, spoken to over HTTP by whoever has its address."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from agentos.core.evidence import remote


@dataclass(frozen=True, slots=True)
class Bucket:
    """A fresh bucket. `url`: of it; `environment`: by which a process finds the server."""

    name: str
    environment: dict[str, str]
    client: Any

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def put(self, key: str, content: bytes) -> str:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)
        return f"{self.url}/{key}"

    def listed(self) -> list[str]:
        return [each["Key"] for each in self.client.list_objects_v2(Bucket=self.name).get("Contents", ())]

    def get(self, key: str) -> bytes:
        body: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return body


@contextmanager
def s3_server() -> Iterator[str]:
    """Its URL."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415  start-up: a second, for the tests that ask for it

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def use(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Make this process, and those it starts, take `endpoint` for S3."""
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    remote._filesystem.cache_clear()
    return environment


def new_bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket of the test's own."""
    import boto3  # noqa: PLC0415  start-up

    environment = use(endpoint, monkeypatch)
    client = boto3.client("s3")
    name = f"bucket-{uuid4().hex[:12]}"
    client.create_bucket(Bucket=name)
    return Bucket(name, environment, client)
