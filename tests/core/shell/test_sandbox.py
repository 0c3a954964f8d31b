"""A sandbox keeps what it says, and is refused with the fix where it cannot be had."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentos.core.flows.tools import ToolCall
from agentos.core.shell import ShellOptions, arun_command, run_command, sandbox
from agentos.core.tool import bash
from agentos.store.errors import InvalidArguments, SandboxUnavailable, ToolTimeout

WALLED = ShellOptions(sandbox="bwrap")


@pytest.fixture
def bwrap() -> None:
    try:
        sandbox.bubblewrap()
    except SandboxUnavailable as error:
        pytest.skip(error.message)


@pytest.fixture
def fresh() -> Iterator[None]:
    sandbox._refusal.cache_clear()
    yield
    sandbox._refusal.cache_clear()


def fake(folder: Path, script: str) -> None:
    program = folder / "bwrap"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.usefixtures("fresh")
async def test_without_bubblewrap_it_is_refused_before_anything_ran(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match="not on the PATH") as refused:
        run_command(f"/bin/echo x > {tmp_path}/ran", options=WALLED)
    assert "install it" in str(refused.value)
    with pytest.raises(SandboxUnavailable):
        await arun_command(f"/bin/echo x > {tmp_path}/ran", options=WALLED)
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("fresh")
def test_where_the_kernel_refuses_it_is_refused_with_what_was_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake(tmp_path, "echo 'bwrap: No permissions to create new namespace' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SandboxUnavailable, match="No permissions to create new namespace") as refused:
        run_command(f"echo x > {tmp_path}/ran", options=WALLED)
    assert "unprivileged_userns_clone" in str(refused.value)
    assert not (tmp_path / "ran").exists()


def test_a_setting_is_not_lifted_by_a_call() -> None:
    assert WALLED.with_asked({"sandbox": "none"}).sandbox == "bwrap"
    assert ShellOptions().with_asked({"sandbox": "bwrap"}).sandbox == "bwrap"
    with pytest.raises(InvalidArguments, match="docker"):
        ShellOptions().with_asked({"sandbox": "docker"})


@pytest.mark.usefixtures("bwrap")
def test_only_the_workspace_can_be_written(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    workspace = tmp_path / "workspace"
    outside.mkdir()
    workspace.mkdir()
    command = f"echo in > made; echo x > /usr/x; echo x > {outside}/x; echo t > /tmp/private && cat /tmp/private"
    result = run_command(command, cwd=workspace, options=WALLED)
    assert (workspace / "made").read_text() == "in\n"
    assert result.stdout == "t\n"
    assert list(outside.iterdir()) == []
    assert not Path("/usr/x").exists()
    assert not Path("/tmp/private").exists()


@pytest.mark.usefixtures("bwrap")
def test_the_home_the_data_folder_and_other_processes_are_not_to_be_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home, data = tmp_path / "home", Path(sys.prefix) / "lib"
    (home / "shown").mkdir(parents=True)
    (home / "shown" / "tool").write_text("tool")
    (home / ".pgpass").write_text("secret")
    monkeypatch.setenv("HOME", str(home))
    workspace = tmp_path / "work"
    workspace.mkdir()
    options = ShellOptions(sandbox="bwrap", hidden=(str(data),), readable=(str(home / "shown"),))
    command = f"cat {home}/.pgpass; ls {data} | wc -l; cat {home}/shown/tool; ls /proc | grep -c '^[0-9]'; ls -A /run"
    shown = run_command(command, cwd=workspace, options=options).stdout.splitlines()
    assert shown[0] == "0"
    assert shown[1].startswith("tool")
    assert int(shown[1].removeprefix("tool")) < 10
    assert len(shown) == 2


@pytest.mark.usefixtures("bwrap")
def test_there_is_no_network_unless_it_is_asked_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        probe = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
        command = ["/usr/bin/env", "python3", "-c", probe]
        assert run_command(command, cwd=tmp_path, options=WALLED).exit_code == 1
        asked = WALLED.with_asked({"network": True})
        assert run_command(command, cwd=tmp_path, options=asked).exit_code == 0


@pytest.mark.usefixtures("bwrap")
def test_exit_codes_output_and_the_key_come_through(tmp_path: Path) -> None:
    result = run_command(
        "echo $AGENTOS_IDEMPOTENCY_KEY; pwd -P; exit 7", cwd=tmp_path, options=WALLED, idempotency_key="k"
    )
    assert (result.exit_code, result.stdout) == (7, f"k\n{tmp_path.resolve()}\n")
    assert run_command(["no-such-program"], cwd=tmp_path, options=WALLED).exit_code == 127


@pytest.mark.usefixtures("bwrap")
def test_what_runs_inside_ends_at_the_timeout(tmp_path: Path) -> None:
    inside = "setsid sleep 300.25 & while :; do sleep 0.05; done"
    with pytest.raises(ToolTimeout):
        run_command(inside, cwd=tmp_path, options=WALLED, timeout_s=0.5)
    assert run_command("pgrep -fx 'sleep 300.25'").exit_code == 1


@pytest.mark.usefixtures("bwrap")
def test_the_bash_tool_takes_a_sandbox(tmp_path: Path) -> None:
    call = ToolCall("key", repair=False, execution=1)
    asked = {"command": "touch /usr/here || echo refused", "sandbox": "bwrap", "cwd": str(tmp_path)}
    assert bash.run(call, asked)["stdout"] == "refused\n"
