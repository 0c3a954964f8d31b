"""A command ends with whoever wanted it: a cancelled task, a worker killed with SIGKILL, a forked copy of it."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop
from tests.core.shell.processes import alive, eventually, pids

from agentos.core.shell import arun_command, clean_environment, run, run_command
from agentos.core.shell.group import CommandGroup
from agentos.store.errors import ToolTimeout

LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
Loop = Callable[[], asyncio.AbstractEventLoop]

FAMILY = "sleep 300 & echo $! > {0}/grandchild; (trap '' TERM HUP; sleep 300; :) & echo $! > {0}/stubborn; {1}"


@LOOPS
def test_the_async_form_gives_the_same_result_and_errors(loop: Loop) -> None:
    async def both() -> None:
        result = await arun_command("echo $AGENTOS_IDEMPOTENCY_KEY; exit 4", idempotency_key="k")
        assert (result.exit_code, result.stdout) == (4, "k\n")
        with pytest.raises(ToolTimeout):
            await arun_command("sleep 300", timeout_s=0.1)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(both())


def test_more_commands_than_executor_threads_run_at_the_same_time(tmp_path: Path) -> None:
    async def meet() -> None:
        wait_for_all = f"touch $N; while [ $(ls {tmp_path} | wc -l) -lt 40 ]; do sleep 0.05; done"
        await asyncio.gather(
            *(arun_command(wait_for_all, cwd=tmp_path, env={"N": str(n)}, timeout_s=30) for n in range(40))
        )

    asyncio.run(meet())


@LOOPS
def test_cancelling_the_task_ends_the_whole_group_before_it_returns(loop: Loop, tmp_path: Path) -> None:
    async def cancel() -> None:
        command = f"sleep 300 & echo $! > {tmp_path}/grandchild; echo $$ > {tmp_path}/self; wait"
        task = asyncio.create_task(arun_command(command))
        family = await asyncio.to_thread(pids, tmp_path, "self", "grandchild")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not alive(family[0])
        assert eventually(lambda: not alive(family[1]))

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(cancel())


def test_cancelling_twice_does_not_wait_for_the_grace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "GRACE_S", 90.0)

    async def cancel_twice() -> float:
        command = f"trap '' TERM; echo $$ > {tmp_path}/self; while :; do sleep 0.1; done"
        task = asyncio.create_task(arun_command(command))
        (leader,) = await asyncio.to_thread(pids, tmp_path, "self")
        started = time.monotonic()
        task.cancel()
        await asyncio.sleep(0.1)
        assert alive(leader)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not alive(leader)
        return time.monotonic() - started

    assert asyncio.run(cancel_twice()) < 45


def test_asyncio_timeout_ends_the_command() -> None:
    async def limited() -> None:
        async with asyncio.timeout(0.1):
            await arun_command("sleep 300")

    with pytest.raises(TimeoutError):
        asyncio.run(limited())


def start_worker(program: str, folder: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen([sys.executable, "-c", program], cwd=folder, env=environment, start_new_session=True)


WORKERS = {
    "sync": "from agentos.core.shell import run_command; run_command({0!r})",
    "async": "import asyncio; from agentos.core.shell import arun_command; asyncio.run(arun_command({0!r}))",
}


@pytest.mark.parametrize("form", WORKERS)
def test_kill_9_of_the_worker_kills_the_command_and_its_grandchildren(form: str, tmp_path: Path) -> None:
    command = FAMILY.format(tmp_path, f"echo $$ > {tmp_path}/self; wait")
    worker = start_worker(WORKERS[form].format(command), tmp_path)
    family = pids(tmp_path, "self", "grandchild", "stubborn")
    assert all(map(alive, family))
    worker.kill()
    worker.wait(10)
    assert eventually(lambda: not any(map(alive, family)))


def test_the_end_of_the_thread_that_started_a_command_is_no_death() -> None:
    group = []
    env = clean_environment()

    def start() -> None:
        group.append(CommandGroup(["sh", "-c", "sleep 0.2; exit 9"], cwd=None, env=env))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert eventually(group[0].ended)
    assert group[0].end() == 9


def test_a_killed_keeper_is_replaced_and_what_it_began_still_ends_with_the_worker(tmp_path: Path) -> None:
    program = f"""
import os, signal, threading, time
from agentos.core.shell import run_command
from agentos.core.shell.keepers import KEEPER
threading.Thread(target=run_command, args=("echo $$ > {tmp_path}/self; exec sleep 300",), daemon=True).start()
while not os.path.exists("{tmp_path}/self"): time.sleep(0.01)
KEEPER._process.kill()
KEEPER._process.wait()
run_command("echo $$ > {tmp_path}/second")
time.sleep(300)
"""
    worker = start_worker(program, tmp_path)
    leader, _ = pids(tmp_path, "self", "second")
    worker.kill()
    worker.wait(10)
    assert eventually(lambda: not alive(leader))


def test_kill_9_during_the_grace_after_sigterm_still_ends_who_ignores_it(tmp_path: Path) -> None:
    program = (
        "from agentos.core.shell import run_command\n"
        f"run_command(\"trap 'echo x > {tmp_path}/termed' TERM; echo $$ > {tmp_path}/self;"
        ' while :; do sleep 0.05; done", timeout_s=3)'  # by then the trap is set
    )
    worker = start_worker(program, tmp_path)
    (leader,) = pids(tmp_path, "self")
    assert eventually((tmp_path / "termed").exists)
    worker.kill()
    worker.wait(10)
    assert eventually(lambda: not alive(leader))


def test_a_forked_copy_of_the_worker_does_not_keep_the_command_alive(tmp_path: Path) -> None:
    program = f"""
import os, threading, time
from agentos.core.shell import run_command
threading.Thread(target=run_command, args=("echo $$ > {tmp_path}/self; exec sleep 300",), daemon=True).start()
while not os.path.exists("{tmp_path}/self"): time.sleep(0.01)
copy = os.fork()
if copy: open("{tmp_path}/copy", "w").write(f"{{copy}}\\n")
time.sleep(300)
"""
    worker = start_worker(program, tmp_path)
    leader, copy = pids(tmp_path, "self", "copy")
    worker.kill()
    worker.wait(10)
    try:
        assert eventually(lambda: not alive(leader))
        assert alive(copy)
    finally:
        os.kill(copy, signal.SIGKILL)


def test_keyboard_interrupt_in_the_sync_form_leaves_nothing(tmp_path: Path) -> None:
    program = f"from agentos.core.shell import run_command; run_command('echo $$ > {tmp_path}/self; exec sleep 300')"
    worker = start_worker(program, tmp_path)
    (leader,) = pids(tmp_path, "self")
    worker.send_signal(signal.SIGINT)
    assert worker.wait(10) != 0
    assert eventually(lambda: not alive(leader))


def test_the_keeper_ends_with_its_process(tmp_path: Path) -> None:
    program = f"""
from agentos.core.shell import run_command
from agentos.core.shell.keepers import KEEPER
run_command("true")
open("{tmp_path}/keeper", "w").write(f"{{KEEPER._process.pid}}\\n")
"""
    assert start_worker(program, tmp_path).wait(10) == 0
    (keeper,) = pids(tmp_path, "keeper")
    assert eventually(lambda: not alive(keeper))


def test_no_process_of_a_command_is_left_for_pid_1_to_collect() -> None:
    session = run_command("ps -o sid= -p $$").stdout.strip()
    assert run_command(f"ps -o pid= --sid {session}").stdout == ""
