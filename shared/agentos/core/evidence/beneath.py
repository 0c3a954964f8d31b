"""Opening a path beneath an evidence root: no symbolic link, no `..`, and no way out, whoever renames meanwhile.

On Linux the kernel does it (openat2); elsewhere, and where a sandbox forbids that call, one component after the other.
"""

import contextlib
import ctypes
import errno
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from agentos.core.evidence.verdict import Refuted

_SYS_OPENAT2 = 437  # on every Linux architecture but alpha
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
_LOOK = getattr(os, "O_PATH", os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_NOFOLLOW, _DIRECTORY = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_DIRECTORY", 0)
# These say something about this process, not about the file.
_NOT_AN_ANSWER = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR}


@contextlib.contextmanager
def opened(path: str, *, cwd: Path, roots: Sequence[Path], read: bool) -> Iterator[int]:
    """A file descriptor of `path`, to read from or only for fstat. A FIFO does not block.

    Raises Refuted: if there is no such file, it may not be opened, or it is not beneath one of `roots`.
    Raises OSError: if this process is out of memory or file descriptors.
    """
    if os.open not in os.supports_dir_fd:
        raise Refuted("this platform cannot open files beneath a folder safely, so file evidence is not checked on it")
    root, parts = placed(path, cwd=cwd, roots=roots)
    with _answering(f"evidence root {root}"):
        root_fd = os.open(root, _DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY))
    try:
        with _answering(path):
            fd = _open_beneath(root_fd, parts, _READ if read else _LOOK)
    finally:
        os.close(root_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def placed(path: str, *, cwd: Path, roots: Sequence[Path]) -> tuple[Path, tuple[str, ...]]:
    """The innermost root above `path`, resolved, and the components below it. Raises Refuted: if there is none."""
    wanted = cwd / path
    if ".." in wanted.parts:
        raise Refuted(f"{path} contains '..', which evidence may not")
    # As given and as resolved: /tmp and /private/tmp are the same root to whoever names a file in it.
    places = {as_named: root for root in roots for as_named in (root.absolute(), _resolved(root))}
    above = [as_named for as_named in places if wanted.is_relative_to(as_named)]
    if not above:
        listed = ", ".join(str(root) for root in roots)
        raise Refuted(f"{path} is outside the evidence roots ({listed}); AGENTOS_EVIDENCE_ROOTS sets them")
    innermost = max(above, key=lambda root: len(root.parts))
    return _resolved(places[innermost]), wanted.relative_to(innermost).parts


def _resolved(root: Path) -> Path:
    return Path(os.path.realpath(root))


@contextlib.contextmanager
def _answering(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NOT_AN_ANSWER:
            raise
        raise Refuted(f"{name} {_REASONS.get(error.errno or 0, f'cannot be opened: {error.strerror}')}") from None


_REASONS = {
    errno.ENOENT: "does not exist",
    errno.ENOTDIR: "does not exist: a folder in its path is a file or a symbolic link",
    errno.ELOOP: "goes through a symbolic link, which evidence may not",
    errno.EXDEV: "leads out of its evidence root",
    errno.EACCES: "may not be opened by this process",
    errno.ENXIO: "is a socket or device, not a regular file",
}


def _open_beneath(root_fd: int, parts: tuple[str, ...], flags: int) -> int:
    if not parts:
        return os.open(".", flags, dir_fd=root_fd)
    if _openat2_works():
        return _openat2(root_fd, os.path.join(*parts), flags)
    return _walk(root_fd, parts, flags)


def _walk(root_fd: int, parts: tuple[str, ...], flags: int) -> int:
    here = os.dup(root_fd)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _DIRECTORY | _NOFOLLOW | getattr(os, "O_PATH", os.O_RDONLY), dir_fd=here)
            os.close(here)
            here = inner
        return os.open(parts[-1], flags | _NOFOLLOW, dir_fd=here)
    finally:
        os.close(here)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _openat2(dir_fd: int, name: str, flags: int) -> int:
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS)
    code = errno.EAGAIN
    for _ in range(10):  # EAGAIN: something was renamed meanwhile
        fd = int(
            _libc().syscall(
                ctypes.c_long(_SYS_OPENAT2),
                ctypes.c_int(dir_fd),
                os.fsencode(name),
                ctypes.byref(how),
                ctypes.c_size_t(ctypes.sizeof(how)),
            )
        )
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(code, os.strerror(code), name)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@functools.cache
def _openat2_works() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    here = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        os.close(_openat2(here, ".", os.O_PATH))
    except OSError:  # ENOSYS before Linux 5.6, EPERM from a sandbox
        return False
    finally:
        os.close(here)
    return True
