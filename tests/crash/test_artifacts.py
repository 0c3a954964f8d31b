"""A worker is killed -9 around ctx.artifact(); another host, with another folder, checks the URL and goes on."""

import hashlib
import signal
from pathlib import Path

import pytest
from tests.object_store import Bucket
from tests.worker.pool import Pool, Sweeping

PARTS = [f"part {n} " * 1000 for n in range(2)]
KEYS = {f"pool/sha256/{(h := hashlib.sha256(part.encode()).hexdigest())[:2]}/{h}" for part in PARTS}


def host(tmp_path: Path, name: str, store: str) -> dict[str, str]:
    """What a worker on a host of its own would see: no file of the other's may be evidence to it."""
    folder = tmp_path / name
    folder.mkdir()
    return {"WORKSPACE": str(folder), "AGENTOS_EVIDENCE_ROOTS": str(folder), "AGENTOS_ARTIFACTS": store}


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("when", ["before", "during", "after"])
@pytest.mark.parametrize("kind", ["url", "folder"])
def test_killed_around_an_artifact_another_host_goes_on_from_what_it_can_check(
    pool: Pool, sweeping: Sweeping, bucket: Bucket, tmp_path: Path, kind: str, when: str, nth: int
) -> None:
    store = f"{bucket.url}/pool" if kind == "url" else str(tmp_path / "mounted")

    def whole() -> int:
        """How many artifacts there are, all of them whole; what is unfinished has no artifact's name."""
        if kind == "url":
            found = {key: bucket.get(key) for key in bucket.listed()}
        else:
            files = [each for each in (tmp_path / "mounted").rglob("*") if each.is_file()]
            found = {f"pool/{f.relative_to(store)}": f.read_bytes() for f in files if not f.name.startswith(".")}
        assert set(found) <= KEYS
        assert all(hashlib.sha256(content).hexdigest() == key.split("/")[-1] for key, content in found.items())
        return len(found)

    handle = pool.submit("archives")
    victim = pool.worker(
        module="tests.crash.faulty_worker", wait=False,
        env={**host(tmp_path, "first", store), "FAULT": f"artifact {when} {nth}"},
    )  # fmt: skip
    assert victim.ended() == -signal.SIGKILL
    assert whole() == (nth if when == "after" else nth - 1)
    assert pool.row("SELECT count(*) FROM agentos.checkpoints") == (nth - 1,)
    for file in (tmp_path / "first").iterdir():
        file.unlink()  # that host is gone, and its files with it
    pool.worker("--solo", wait=False, env=host(tmp_path, "second", store))
    assert handle.result(60) == PARTS
    assert whole() == 2
    assert pool.rows("SELECT sequence_number, superseded_reason FROM agentos.checkpoints ORDER BY 1") == [
        (1, None), (2, None),
    ]  # fmt: skip
    assert (tmp_path / "second" / "part-0").exists() == (nth == 1)


def test_a_host_that_cannot_see_the_store_does_not_go_on_from_the_checkpoint(
    pool: Pool, sweeping: Sweeping, bucket: Bucket, tmp_path: Path
) -> None:
    handle = pool.submit("archives")
    victim = pool.worker(
        module="tests.crash.faulty_worker", wait=False,
        env={**host(tmp_path, "first", f"{bucket.url}/pool"), "FAULT": "artifact before 2"},
    )  # fmt: skip
    assert victim.ended() == -signal.SIGKILL
    pool.worker("--solo", wait=False, env=host(tmp_path, "second", str(tmp_path / "elsewhere")))
    assert handle.result(60) == PARTS
    ((reason,), *others) = pool.rows("SELECT superseded_reason FROM agentos.checkpoints ORDER BY sequence_number")
    assert "is below none of the allowed URLs (none)" in reason
    assert others == [(None,), (None,)]
