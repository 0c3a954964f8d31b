"""The peers' scratch environments, outside this repository: made once per set of pinned requirements, then kept."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from bench.processes import ROOT

HERE = Path(__file__).parent


class NotInstalled(Exception):
    """Why a peer cannot be measured here."""


@dataclass(frozen=True, slots=True)
class Peer:
    """`items`: about how many it drains in two seconds. `steps`: whether it has durable steps."""

    name: str
    folder: str
    items: int
    steps: bool = False

    @property
    def pins(self) -> Path:
        """The file that pins its packages with their hashes."""
        node = HERE / self.folder / "package-lock.json"
        return node if node.exists() else HERE / self.folder / "requirements.txt"

    @property
    def environment(self) -> Path:
        """Its scratch environment."""
        digest = hashlib.sha256(self.pins.read_bytes()).hexdigest()[:12]
        return platformdirs.user_cache_path("agentos") / "bench-peers" / f"{self.folder}-{digest}"

    def command(self) -> list[str]:
        """What starts its driver."""
        if self.pins.suffix == ".json":
            return ["node", str(HERE / self.folder / "driver.mjs")]
        return [str(self.environment / "bin" / "python"), "-m", f"bench.peers.{self.folder}.driver"]

    def variables(self) -> dict[str, str]:
        """The driver's environment."""
        return {**os.environ, "PYTHONPATH": str(ROOT), "PEER_MODULES": str(self.environment)}


PEERS = (
    Peer("PgQueuer", "pgqueuer", items=15_000),
    Peer("pgtask", "pgtask", items=2_000, steps=True),
    Peer("Graphile Worker", "graphile", items=40_000),
)


def install(peer: Peer) -> None:
    """Make its environment unless it is there. Raises NotInstalled: with the last line of what the tool said."""
    if (peer.environment / "complete").exists():
        return
    shutil.rmtree(peer.environment, ignore_errors=True)
    peer.environment.mkdir(parents=True)
    print(f"installing {peer.name} into {peer.environment}", file=sys.stderr, flush=True)
    if peer.pins.suffix == ".json":
        for name in ("package.json", "package-lock.json"):
            shutil.copy(peer.pins.with_name(name), peer.environment)
        _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=peer.environment)
    else:
        _run(sys.executable, "-m", "venv", str(peer.environment))
        python = str(peer.environment / "bin" / "python")
        _run(python, "-m", "pip", "install", "-qq", "--require-hashes", "-r", str(peer.pins))
    (peer.environment / "complete").touch()


def _run(*argv: str, cwd: Path | None = None) -> None:
    if shutil.which(argv[0]) is None:
        raise NotInstalled(f"{argv[0]} is not installed")
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise NotInstalled(f"{' '.join(argv[:3])}: {said[-1]}")
