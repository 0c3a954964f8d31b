"""Containers of the local engine, as an orchestrator runs them: no root, nothing writable, no capability."""

import json
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.coordinator.daemon import until

ROOT = Path(__file__).parents[2]
BASE, POSTGRES = "python:3.11-slim", "postgres:15"
IMAGE, NEXT = "agentos:test", "agentos:test-next"
APP = ROOT / "tests" / "deploy" / "app"
RESTRICTED = (
    "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=65532:65532",
    "--tmpfs=/tmp", "--tmpfs=/var/lib/agentos:uid=65532,mode=0750",
)  # fmt: skip


def docker(*args: str, timeout_s: float = 60, check: bool = True, stdin: str | None = None) -> str:
    """Run the client; its stdout. What it says on stderr is in the failure."""
    ran = subprocess.run(
        ["docker", *args], capture_output=True, text=True, timeout=timeout_s, check=False, input=stdin
    )  # fmt: skip
    assert not check or ran.returncode == 0, f"docker {' '.join(args)}: {ran.stderr or ran.stdout}"
    return ran.stdout.strip()


def refused() -> str | None:
    """Why no container can be run here; None: they can."""
    try:
        answer = subprocess.run(["docker", "version"], capture_output=True, text=True, check=False, timeout=20)
    except (FileNotFoundError, subprocess.TimeoutExpired) as exc:
        return f"no Docker engine here: {exc}"
    if answer.returncode:
        return f"no Docker engine answers: {answer.stderr.strip().splitlines()[-1]}"
    for image in (BASE, POSTGRES):
        if subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode:
            return f"the image {image} is not here: pull it, or tests/local-images.sh makes it"
    return None


@dataclass(frozen=True, slots=True)
class Container:
    """A container that was started; `stop` and `kill` are the engine's."""

    name: str

    def state(self) -> dict[str, Any]:
        """What the engine knows of it."""
        found: dict[str, Any] = json.loads(docker("inspect", self.name))[0]["State"]
        return found

    def logs(self) -> str:
        """Everything that it said."""
        ran = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True, check=True, timeout=30)
        return ran.stdout + ran.stderr

    def until_said(self, text: str, timeout_s: float = 60) -> None:
        """Wait for a line with `text`; fails when it ends without it."""

        def look() -> bool:
            running, said = self.state()["Running"], self.logs()  # in this order: it may say it and end
            assert running or text in said, f"{self.name} ended before {text!r}: {said[-3000:]}"
            return text in said

        until(look, timeout_s=timeout_s, what=f"{text!r} of {self.name}")

    def run(self, *command: str, timeout_s: float = 60) -> str:
        """Run a command in it, as its user; the stdout."""
        return docker("exec", self.name, *command, timeout_s=timeout_s)

    def port(self) -> int:
        """The port of this host that leads to its probes."""
        return int(docker("port", self.name, "8080").splitlines()[0].rpartition(":")[2])

    def stop(self, grace_s: int = 40) -> tuple[int, float]:
        """SIGTERM, and SIGKILL after `grace_s`; its exit code, and the seconds that it took."""
        began = time.monotonic()
        docker("stop", "-t", str(grace_s), self.name, timeout_s=grace_s + 30)
        return int(self.state()["ExitCode"]), time.monotonic() - began

    def kill(self) -> None:
        """SIGKILL."""
        docker("kill", self.name)


@dataclass(slots=True)
class Engine:
    """A network of its own with a Postgres in it; at the end of the block nothing is left."""

    name: str = field(default_factory=lambda: f"agentos-test-{uuid.uuid4().hex[:8]}")
    _started: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        docker("network", "create", self.name)
        self._start(
            "postgres", "-p=127.0.0.1::5432", "--tmpfs=/var/lib/postgresql/data", "-e=POSTGRES_USER=agentos",
            "-e=POSTGRES_PASSWORD=test", POSTGRES, "-c", "fsync=off", "-c", "max_connections=200",
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
        docker("rm", "--force", "--volumes", f"{self.name}-postgres")
        docker("network", "rm", self.name)

    def clear(self) -> None:
        """Remove what was started, but the Postgres."""
        if self._started:
            docker("rm", "--force", "--volumes", *self._started)
        self._started.clear()

    def postgres_port(self) -> int:
        """The port of this host that leads to the Postgres."""
        return int(docker("port", f"{self.name}-postgres", "5432").splitlines()[0].rpartition(":")[2])

    def inner_dsn(self, database: str) -> str:
        """A database, as containers reach it."""
        return f"postgresql://agentos:test@{self.name}-postgres:5432/{database}?sslmode=disable"

    def outer_dsn(self, database: str) -> str:
        """The same, as this process reaches it."""
        return f"postgresql://agentos:test@127.0.0.1:{self.postgres_port()}/{database}"

    def run(self, image: str, *command: str, options: Sequence[str] = ()) -> Container:
        """Start a container under the restrictions that the chart asks for."""
        name = f"c{len(self._started)}-{uuid.uuid4().hex[:6]}"
        self._started.append(f"{self.name}-{name}")
        return self._start(name, *RESTRICTED, "-p=127.0.0.1::8080", *options, image, *command)

    def _start(self, name: str, *args: str) -> Container:
        docker("run", "--detach", f"--network={self.name}", f"--name={self.name}-{name}", *args)
        return Container(f"{self.name}-{name}")


def build_image() -> None:
    """The image of this checkout. Its packages are a layer of their own, which is built once."""
    docker(
        "build", "--quiet", "--network=host", "--file", str(ROOT / "deploy" / "Dockerfile"), "--tag", IMAGE,
        "--build-arg", "REVISION=test", str(ROOT), timeout_s=900,
    )  # fmt: skip


def build_next() -> None:
    """The next version: other functions on the same tables, which is what an upgrade without a migration is."""
    dockerfile = f"""
    FROM {IMAGE}
    USER root
    RUN for file in /opt/agentos/lib/python3*/site-packages/agentos/store/sql/functions/010_clock.sql; do \\
          echo '-- of the next version' >>"$file"; done
    USER 65532:65532
    LABEL org.opencontainers.image.version="next"
    """
    docker("build", "--quiet", "--tag", NEXT, "-", stdin=dockerfile, timeout_s=120)
