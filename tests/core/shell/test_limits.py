"""What a command may use is limited, and who passes a limit is ended with all that belongs to it."""

import resource
from pathlib import Path
from typing import Any

import pytest
from tests.core.shell.processes import alive, eventually, pids

from agentos.core.flows.tools import ToolCall, ToolPolicy
from agentos.core.shell import Limits, ShellOptions, run_command, shell_options
from agentos.core.tool import bash, shell_tool
from agentos.store.errors import InvalidArguments, ToolLimitExceeded
from agentos.store.settings import load_settings

CALL = ToolCall("key", repair=False, execution=1)
HUNGRY = "python3 -c 'x = bytearray({0} * 2**20); print(len(x))'"


def limited(**limits: Any) -> ShellOptions:
    return ShellOptions(limits=Limits(**limits))


def test_a_process_gets_no_more_memory_than_its_limit() -> None:
    result = run_command(HUNGRY.format(300), options=limited(memory_mb=200))
    assert result.exit_code != 0
    assert "MemoryError" in result.stderr
    assert run_command(HUNGRY.format(20), options=limited(memory_mb=200)).exit_code == 0


def test_many_processes_together_get_no_more_memory_than_the_limit(tmp_path: Path) -> None:
    hold = "import os, time; x = bytearray(b'x' * (60 * 2**20)); time.sleep(300)"
    one = f'python3 -c "{hold}" &'
    command = f"{one} echo $! > {tmp_path}/first; {one} {one} {one} wait"
    with pytest.raises(ToolLimitExceeded, match="more than 150 MiB of memory"):
        run_command(command, options=limited(memory_mb=150), timeout_s=60)
    assert not alive(pids(tmp_path, "first")[0])


def test_too_many_processes_end_the_command_and_all_of_them(tmp_path: Path) -> None:
    command = f"setsid sleep 300 & echo $! > {tmp_path}/first; for n in $(seq 40); do setsid sleep 300 & done; wait"
    with pytest.raises(ToolLimitExceeded, match="more than 20 processes"):
        run_command(command, options=limited(processes=20), timeout_s=60)
    assert not alive(pids(tmp_path, "first")[0])


def test_a_file_grows_to_its_limit_only(tmp_path: Path) -> None:
    result = run_command(f"exec head -c 3000000 /dev/zero > {tmp_path}/file", options=limited(file_mb=1))
    assert result.exit_code == 153
    assert (tmp_path / "file").stat().st_size == 2**20


def test_processor_time_is_limited() -> None:
    result = run_command("while :; do :; done", options=limited(cpu_s=1), timeout_s=60)
    assert result.exit_code in (152, 137)


def test_there_are_no_core_files_and_the_limits_of_this_process_stay() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    assert run_command("ulimit -c", options=limited(memory_mb=100)).stdout == "0\n"
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.parametrize("limits", [{"memory_mb": 0}, {"processes": -1}, {"cpu_s": True}, {"file_mb": "1"}])
def test_a_limit_that_makes_no_sense_is_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(InvalidArguments, match=next(iter(limits))):
        Limits(**limits)


def test_settings_are_the_default_a_tool_stands_over_them_and_a_call_over_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_SHELL_MEMORY_MB", "100")
    monkeypatch.setenv("AGENTOS_SHELL_CPU_S", "0")
    monkeypatch.setenv("AGENTOS_SHELL_ENV", "APP_*, OTHER")
    options = shell_options(load_settings())
    assert options.limits == Limits(memory_mb=100, processes=1024, file_mb=16384, cpu_s=None)
    assert (options.timeout_s, options.env) == (3600, ("APP_*", "OTHER"))
    asked = options.with_asked({"memory_mb": 7, "timeout_s": None, "output_kb": 1, "command": "x"})
    assert (asked.limits.memory_mb, asked.timeout_s, asked.output_limit) == (7, 3600, 1024)


def test_the_bash_tool_takes_limits_and_refuses_what_it_does_not_know() -> None:
    asked = {"command": HUNGRY.format(300), "memory_mb": 200}
    assert "MemoryError" in bash.run(CALL, asked)["stderr"]
    with pytest.raises(InvalidArguments, match="'memory'"):
        bash.run(CALL, {"command": "true", "memory": 1})


async def test_a_tool_of_the_user_declares_its_own_limits() -> None:
    small = shell_tool("small", ToolPolicy(), memory_mb=200, output_kb=1)
    assert "MemoryError" in (await small.run(CALL, HUNGRY.format(300)))["stderr"]
    assert len((await small.run(CALL, "yes | head -c 5000"))["stdout"]) == 1024
    with pytest.raises(InvalidArguments, match="'colour'"):
        shell_tool("wrong", ToolPolicy(), colour="red")


def test_a_command_that_kills_whoever_keeps_it_leaves_nothing_all_the_same(tmp_path: Path) -> None:
    family = f"setsid sleep 300 & echo $! > {tmp_path}/away; echo $$ > {tmp_path}/self;"
    result = run_command(f"{family} kill -KILL $PPID; sleep 300", timeout_s=30)
    assert result.exit_code == 137
    assert eventually(lambda: not any(map(alive, pids(tmp_path, "away", "self"))))
