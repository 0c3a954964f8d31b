"""The watcher: a shell beside this process that kills the commands' groups when this process is gone.

A parent-death signal would follow the *thread* that started a command, and grandchildren would not get it. The watcher
reads from a pipe whose only writer is this process, so it learns of its end however that came, SIGKILL included. There
is one per process and not one in each group: a watcher per command would be an orphan that pid 1 has to collect, and in
a container pid 1 is often the worker itself, which collects no strangers.
"""

import os
import subprocess
import threading

_PROGRAM = """
groups=' '
while read -r what group; do
  case $what in
    +) groups="$groups$group " ;;
    -) groups="${groups%% $group *} ${groups#* $group }" ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group"; done
"""


class Watcher:
    """Which groups are to die with this process. Safe for threads and for `fork` (the copy has none)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: set[int] = set()
        self._pipe: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        os.register_at_fork(before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._forget)

    def add(self, group: int) -> None:
        """From now on `group` dies with this process."""
        with self._lock:
            self._groups.add(group)
            self._tell("+", group)

    def remove(self, group: int) -> None:
        """`group` is dead. To be called while its leader was not waited for, so that the number is still its own."""
        with self._lock:
            self._groups.discard(group)
            self._tell("-", group)

    def _tell(self, what: str, group: int) -> None:
        try:
            if self._pipe is not None:
                os.write(self._pipe, f"{what} {group}\n".encode())
                return
        except BrokenPipeError:
            self._collect()
        if self._groups:
            self._start()

    def _start(self) -> None:
        read_end, self._pipe = os.pipe()
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _PROGRAM],
                stdin=read_end,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
                start_new_session=True,
            )
        finally:
            os.close(read_end)
        os.write(self._pipe, "".join(f"+ {group}\n" for group in self._groups).encode())

    def _collect(self) -> None:
        """The watcher was killed: somebody ended it by hand, or the kernel did for memory."""
        if self._pipe is not None:
            os.close(self._pipe)
        if self._process is not None:
            self._process.wait()
        self._pipe = self._process = None

    def _forget(self) -> None:
        """In a forked copy of this process, which must not keep the commands of its parent alive."""
        if self._pipe is not None:
            os.close(self._pipe)
        if self._process is not None:
            self._process.returncode = 0  # not a child of the copy: nothing to wait for, nothing to warn of
        self._pipe = self._process = None
        self._groups.clear()
        self._lock.release()


WATCHER = Watcher()
"""The one of this process. It starts with the first command."""
