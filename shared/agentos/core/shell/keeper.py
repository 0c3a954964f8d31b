"""The keeper: a program beside this process that starts its commands and leaves nothing of them.

It is run by its path (`python -I -S keeper.py`) and imports nothing of agentos: it starts in milliseconds, and what it
forks is small and knows no secret. Its standard input is the *door*, a socket whose other end only the owner holds.
Each byte that comes through it brings the descriptors of one command: control, stdout, stderr, and more to pass on.
For each the keeper forks a copy of itself, which

- collects every orphan of the command (PR_SET_CHILD_SUBREAPER): what left its session, by `setsid` or by forking
  twice, is still found, and killed when the command has ended, when it is told to, or when `control` is closed, which
  is what SIGKILL of the owner does;
- sets limits before the program begins, and looks at what no limit of the kernel counts: the processes and the memory
  of all of them together;
- dies itself only by hand, and then the keeper kills its orphans.

Elsewhere than on Linux there is no subreaper: there only the process group is ended.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterable
from typing import Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LINUX = sys.platform == "linux"
SWEEP_S = 5.0  # what is then still there belongs to another user (sudo), or sleeps in the kernel
FIRST_LOOK_S, LOOK_S = 0.05, 0.4
PAGE = resource.getpagesize()
RLIMITS = {
    "memory": resource.RLIMIT_DATA,  # not RLIMIT_AS: what is only reserved (Go, V8, Java) is no memory
    "file": resource.RLIMIT_FSIZE,
    "cpu": resource.RLIMIT_CPU,
    "core": resource.RLIMIT_CORE,
}


def prctl(option: int, value: int) -> None:
    if LINUX:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


# -- what is there ------------------------------------------------------------------------------------------------


def processes() -> dict[int, tuple[int, int]]:
    """{pid: (parent, pages in memory)} of every process that is not a zombie."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:  # it ended
                continue
            if fields[0] not in b"ZX":
                found[int(name)] = (int(fields[1]), int(fields[21]))
    return found


def descendants(root: int, found: dict[int, tuple[int, int]]) -> list[int]:
    """The pids of `found` that stand under `root`."""
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in found.items():
        children.setdefault(parent, []).append(pid)
    tree, left = [], [root]
    while left:
        below = children.get(left.pop(), [])
        tree += below
        left += below
    return tree


def kill_all(pids: Iterable[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:  # it ended, or is another user's
            continue


def collect() -> bool:
    """Take the zombies of this process. Whether children are left."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def sweep(leader: int) -> None:
    """End everything that is under this process. The number of the group is its own until the leader is collected."""
    with contextlib.suppress(OSError):
        os.killpg(leader, signal.SIGKILL)
    deadline = time.monotonic() + SWEEP_S
    while time.monotonic() < deadline:
        if LINUX:
            kill_all(descendants(os.getpid(), processes()))
        if not collect():
            return
        time.sleep(0.002)


# -- one command --------------------------------------------------------------------------------------------------


def receive(control: socket.socket) -> Any:
    """The request: a length of eight bytes, then JSON."""
    with control.makefile("rb") as file:
        return json.loads(file.read(struct.unpack(">Q", file.read(8))[0]))


def tell(control: socket.socket, **message: object) -> None:
    with contextlib.suppress(OSError):  # the owner is gone; `watch` sees it
        control.sendall(json.dumps(message).encode() + b"\n")


def run_program(request: Any, streams: list[int], refused: int) -> None:
    """In the child: become the program. What prevents it goes to `refused` as an errno."""
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for each in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
            signal.signal(each, signal.SIG_DFL)
        if request["cwd"] is not None:
            os.chdir(request["cwd"])
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        inherited = [above(fd) for fd in [*streams, refused]]
        for number, fd in enumerate(inherited[:-1], start=1):
            os.dup2(fd, number)
        last = len(streams) + 1
        os.dup2(inherited[-1], last, inheritable=False)
        refused = last
        os.closerange(last + 1, 1 << 20)
        set_limits(request["limits"])
        os.execvpe(request["argv"][0], request["argv"], request["env"])  # noqa: S606  that is what it is for
    except FileNotFoundError:
        stop(f"{request['argv'][0]}: not found\n", 127)
    except (PermissionError, NotADirectoryError) as error:
        stop(f"{request['argv'][0]}: {error.strerror}\n", 126)
    except OSError as error:
        if error.errno == errno.ENOEXEC:
            stop(f"{request['argv'][0]}: {error.strerror}\n", 126)
        os.write(refused, str(error.errno).encode())
    finally:
        os._exit(126)


def above(fd: int) -> int:
    """`fd` under a number above all those that the program is to get."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64)


def stop(message: str, code: int) -> None:
    os.write(2, message.encode(errors="replace"))
    os._exit(code)


def set_limits(limits: dict[str, int | None]) -> None:
    """Never above what this process has: that would need a privilege. Without limit stays what it is."""
    for name, value in limits.items():
        if name in RLIMITS and value is not None:
            hard = resource.getrlimit(RLIMITS[name])[1]
            most = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(RLIMITS[name], (most, most))
    if limits["processes"] is not None and LINUX and os.getuid() != 0:  # counts all that this user runs
        most = limits["processes"] + sum(1 for pid in processes() if owner(pid) == os.getuid())
        hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
    if LINUX:  # when the machine is out of memory it is the command that ends, not whoever runs it
        with open("/proc/self/oom_score_adj", "r+") as file:
            if int(file.read()) < 500:
                file.write("500")


def owner(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


def start(request: Any, streams: list[int]) -> tuple[int, int]:
    """(pid of the program, 0), or (0, errno): it cannot be started."""
    heard, refused = os.pipe()
    pid = os.fork()
    if pid == 0:
        run_program(request, streams, refused)
    os.close(refused)
    said = os.read(heard, 16)  # ends when the program begins
    os.close(heard)
    if said:
        os.waitpid(pid, 0)
        return 0, int(said)
    return pid, 0


def keep(control: socket.socket, streams: list[int]) -> None:
    """From request to the end of all that it started."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    request = receive(control)
    leader, refused = start(request, streams)
    for stream in streams:
        os.close(stream)
    if refused:
        tell(control, refused=refused)
        return
    tell(control, pid=leader)
    watch(control, leader, request["limits"])
    sweep(leader)
    tell(control, gone=True)


def watch(control: socket.socket, leader: int, limits: dict[str, int | None]) -> None:
    """Until the owner says that it is enough, is gone, or a limit is passed."""
    woken, ended, look = wakeups(), False, FIRST_LOOK_S
    watched = LINUX and (limits["processes"] is not None or limits["memory"] is not None)
    while True:
        collect_orphans(leader)
        if not ended and (code := exit_code(leader)) is not None:
            ended = True
            tell(control, code=code)
        ready = select.select([control.fileno(), woken], [], [], look if watched and not ended else None)[0]
        if control.fileno() in ready:
            if hear(control) != b"T":
                return
            terminate(leader)
        if woken in ready:
            os.read(woken, 4096)
        if not ready and (passed := over(limits)):
            sweep(leader)
            tell(control, limit=passed)
            return
        look = min(look * 1.5, LOOK_S)


def hear(control: socket.socket) -> bytes:
    try:
        return control.recv(1)
    except OSError:
        return b""


def over(limits: dict[str, int | None]) -> dict[str, Any] | None:
    """The limit that all processes of the command together pass, with what was found."""
    found = processes()
    tree = descendants(os.getpid(), found)
    memory = sum(found[pid][1] for pid in tree) * PAGE
    if limits["processes"] is not None and len(tree) > limits["processes"]:
        return {"name": "processes", "found": len(tree)}
    if limits["memory"] is not None and memory > limits["memory"]:
        return {"name": "memory", "found": memory}
    return None


def terminate(leader: int) -> None:
    for number in (signal.SIGTERM, signal.SIGCONT):  # a stopped one is woken for it
        with contextlib.suppress(OSError):
            os.killpg(leader, number)


def exit_code(leader: int) -> int | None:
    """As a shell gives it; None: it runs. It stays uncollected, so that nobody else is given its number."""
    found = os.waitid(os.P_PID, leader, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else 128 + found.si_status


def collect_orphans(leader: int) -> None:
    """Zombies that came here because their parent ended before them."""
    if not LINUX:
        return
    while True:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None or found.si_pid == leader:
            return  # those behind the leader are taken by the sweep
        os.waitpid(found.si_pid, 0)


def wakeups() -> int:
    """A descriptor that can be read when a child has ended."""
    read_end, write_end = os.pipe()
    for end in (read_end, write_end):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    return read_end


# -- all of them --------------------------------------------------------------------------------------------------


def end_strangers(keepers: set[int]) -> None:
    """Collect keepers that ended, and kill what one that was killed by hand has left: it came to this process."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            break
        keepers.discard(pid)
    if LINUX:
        found = processes()
        left = [pid for pid, (parent, _) in found.items() if parent == os.getpid() and pid not in keepers]
        kill_all(left)
        for stranger in left:
            kill_all(descendants(stranger, found))


def serve(door: socket.socket) -> None:
    """Until the owner is gone and nothing is left of what it started."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    woken = wakeups()
    keepers: set[int] = set()
    while True:
        ready = select.select([door.fileno(), woken], [], [])[0]
        if woken in ready:
            os.read(woken, 4096)
            end_strangers(keepers)
        if door.fileno() in ready:
            said, fds, _, _ = socket.recv_fds(door, 1, 16)
            if not said:
                break
            keepers.add(fork_keeper(door, woken, fds))
    while keepers:
        select.select([woken], [], [], 1.0)
        end_strangers(keepers)


def fork_keeper(door: socket.socket, woken: int, fds: list[int]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            signal.set_wakeup_fd(-1)
            os.close(woken)
            door.close()
            keep(socket.socket(fileno=fds[0]), fds[1:])
        finally:
            os._exit(0)
    for fd in fds:
        os.close(fd)
    return pid


if __name__ == "__main__":
    serve(socket.socket(fileno=0))
