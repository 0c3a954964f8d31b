"""A command runs, says what it says within its cap, and nothing of it stays."""

import json
import os
import re
import threading
import time
from pathlib import Path

import pytest
from tests.core.shell.processes import alive, eventually, pids, timed_out

from agentos.core.shell import CommandResult, clean_environment, run_command
from agentos.core.shell.result import Tail
from agentos.core.shell.run import GRACE_S
from agentos.store.canonical import canonical
from agentos.store.errors import InvalidInput, InvalidValue, ToolTimeout


def test_a_string_runs_through_the_shell_and_a_list_does_not() -> None:
    assert run_command("echo $((1 + 1)) | cat").stdout == "2\n"
    assert run_command(["echo", "$((1 + 1))", "two  spaces"]).stdout == "$((1 + 1)) two  spaces\n"


def test_the_result_has_both_streams_the_code_and_the_time() -> None:
    result = run_command("echo out; echo err >&2; exit 3")
    assert (result.exit_code, result.stdout, result.stderr, result.truncated) == (3, "out\n", "err\n", 0)
    assert 0 < result.duration_s < 5
    assert list(result.as_dict()) == ["exit_code", "stdout", "stderr", "duration_s", "truncated"]


@pytest.mark.parametrize(
    ("command", "code"),
    [("kill -KILL $$", 137), ("kill -TERM $$", 143), (["no-such-program-here"], 127), (["/etc/passwd"], 126)],
)
def test_exit_codes_follow_the_shell(command: str | list[str], code: int) -> None:
    assert run_command(command).exit_code == code


def test_without_cwd_a_command_runs_where_its_process_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        monkeypatch.chdir(folder)
        assert run_command("pwd -P").stdout == f"{folder.resolve()}\n"


def test_a_command_that_kills_its_own_group_is_a_result() -> None:
    assert run_command("kill -KILL 0").exit_code == 137


def test_stdin_is_empty_and_no_other_descriptor_is_inherited() -> None:
    marker = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(marker, True)
    try:
        result = run_command("cat; ls /proc/self/fd | wc -l")
    finally:
        os.close(marker)
    assert result.stdout.strip() == "4"  # 0, 1, 2 and the folder that ls reads


def test_the_command_may_wait_for_all_its_children() -> None:
    program = "import os\ntry:\n while True: os.wait()\nexcept ChildProcessError: print('no child')"
    assert run_command(["python3", "-c", program], timeout_s=10).stdout == "no child\n"


def test_it_runs_in_the_directory_given(tmp_path: Path) -> None:
    assert run_command("pwd -P", cwd=tmp_path).stdout.strip() == str(tmp_path.resolve())


def test_a_directory_that_is_not_there_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere"):
        run_command("true", cwd=tmp_path / "nowhere")


@pytest.mark.parametrize("command", ["", [], ["true", 1]])
def test_what_is_no_command_is_refused(command: str) -> None:
    with pytest.raises(InvalidInput, match="not a command"):
        run_command(command)


def test_what_the_system_cannot_pass_on_is_refused() -> None:
    with pytest.raises(InvalidValue, match="null byte"):
        run_command("echo \x00")
    with pytest.raises(InvalidValue, match="surrogates"):
        run_command("echo \ud800")
    with pytest.raises(InvalidInput, match="Argument list too long"):
        run_command(["echo", "x" * 4_000_000])


def test_secrets_stay_out_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = {
        "AGENTOS_DSN": "postgresql://h/db",
        "PGPASSWORD": "x",
        "PGHOST": "x",
        "AGENTOS_LLM_API_KEY": "x",
        "OPENAI_API_KEY": "x",
        "GITHUB_TOKEN": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "MYSQL_PWD": "x",
        "REDIS": "redis://:pw@h/0",
        "PIP_INDEX_URL": "https://token@h/simple",
    }
    hidden |= {"HTTP_PROXY": "http://user:pw@h:1", "UNHEARD_OF": "x"}
    shown = {"OLDPWD": "/tmp", "LC_ALL": "C.UTF-8", "HTTPS_PROXY": "http://h:3128"}
    for name, value in (hidden | shown).items():
        monkeypatch.setenv(name, value)
    names = {line.partition("=")[0] for line in run_command("env").stdout.splitlines()}
    assert not names & hidden.keys()
    assert shown.keys() | {"PATH"} <= names


def test_the_process_and_whoever_started_it_show_no_secret_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_DSN", "postgresql://user:hunter2@h/db")
    seen = run_command("cat /proc/self/environ /proc/$PPID/environ").stdout + run_command("env").stdout
    assert "PATH=" in seen
    assert "hunter2" not in seen


def test_names_may_be_added_to_the_list_but_never_the_database() -> None:
    inherited = {"APP_MODE": "x", "APP_TOKEN": "x", "ONE_KEY": "k", "PGHOST": "h", "AGENTOS_DSN": "d"}
    kept = clean_environment(inherited=inherited, allowed=("APP_*", "ONE_KEY", "PGHOST", "AGENTOS_DSN", "*"))
    assert kept == {"APP_MODE": "x", "ONE_KEY": "k"}


def test_what_is_passed_by_env_arrives_whatever_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "of the worker")
    assert run_command('echo "$MY_TOKEN"', env={"MY_TOKEN": "given"}).stdout == "given\n"


def test_the_idempotency_key_is_the_one_given_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_IDEMPOTENCY_KEY", "of the caller's own caller")
    show = 'echo "${AGENTOS_IDEMPOTENCY_KEY-unset}"'
    assert run_command(show, idempotency_key="k1").stdout == "k1\n"
    assert run_command(show).stdout == "unset\n"
    assert clean_environment({"A": "b"}, inherited={}) == {"A": "b"}


def test_of_large_output_the_end_is_kept_and_the_rest_counted() -> None:
    result = run_command("head -c 3000000 /dev/zero | tr '\\0' a; echo end; echo err >&2", output_limit=1000)
    assert result.stdout == "a" * 996 + "end\n"
    assert result.stderr == "err\n"
    assert result.truncated == 3_000_004 - 1000


def test_both_streams_may_be_large_at_once() -> None:
    result = run_command("yes out | head -c 2000000 & yes err | head -c 2000000 >&2; wait", timeout_s=20)
    assert (result.exit_code, len(result.stdout), len(result.stderr)) == (0, 65536, 65536)


def test_any_bytes_become_text_that_can_be_stored() -> None:
    result = run_command(r"printf '\000\377\355\240\200ok\303\251'")
    assert result.stdout.endswith("oké")
    assert "\x00" not in result.stdout
    assert canonical(result.as_dict(), limit=100_000, what="result")
    assert json.loads(json.dumps(result.as_dict())) == result.as_dict()


@pytest.mark.parametrize(("limit", "text", "dropped"), [(3, "é", 3), (2, "é", 4), (0, "", 6), (6, "ééé", 0)])
def test_a_character_cut_in_two_leaves_no_rubbish(limit: int, text: str, dropped: int) -> None:
    tail = Tail(limit)
    for byte in "ééé".encode():
        tail.feed(bytes([byte]))
    assert (tail.text(), tail.dropped) == (text, dropped)


def test_a_grandchild_that_keeps_the_output_open_is_not_waited_for_and_dies(tmp_path: Path) -> None:
    result = run_command(f"sleep 300 & echo $! > {tmp_path}/pid; echo done")
    assert (result.exit_code, result.stdout) == (0, "done\n")
    assert result.duration_s < 3
    assert eventually(lambda: not alive(pids(tmp_path, "pid")[0]))


def test_what_went_to_a_session_of_its_own_is_not_waited_for_and_dies_too(tmp_path: Path) -> None:
    daemon = f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 300' &"
    twice = f"(setsid sh -c '(echo $$; exec 1>&- 2>&-; exec sleep 300) > {tmp_path}/second &' &);"
    wait = f"while [ ! -s {tmp_path}/pid ] || [ ! -s {tmp_path}/second ]; do sleep 0.01; done;"
    result = run_command(f"{daemon} {twice} {wait} echo done")
    assert result.stdout == "done\n"
    assert result.duration_s < 3
    assert not any(map(alive, pids(tmp_path, "pid", "second")))


def test_a_command_that_closes_its_output_is_waited_for() -> None:
    assert run_command("exec >&- 2>&-; sleep 0.2; exit 7").exit_code == 7


def test_output_written_just_after_the_command_ended_is_kept() -> None:
    assert run_command("{ sleep 0.1; echo late; } & echo early").stdout == "early\nlate\n"


def test_a_timeout_ends_the_whole_group_and_says_what_was_written(tmp_path: Path) -> None:
    started = time.monotonic()
    said = timed_out(f"sleep 300 & echo $! > {tmp_path}/pid; echo begun; wait", "begun", 0.3, 3, 20)
    assert time.monotonic() - started < 100
    assert re.search(r"\b(0\.3|3|20) s\b", said)
    assert "begun" in said
    assert eventually(lambda: not alive(pids(tmp_path, "pid")[0]))


def test_who_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    started = time.monotonic()
    stubborn = f"trap '' TERM; echo $$ > {tmp_path}/pid; echo deaf; while :; do sleep 0.1; done"
    assert "deaf" in timed_out(stubborn, "deaf", 0.1, 3, 20)
    assert time.monotonic() - started > GRACE_S
    assert not alive(pids(tmp_path, "pid")[0])


def test_sigterm_lets_a_command_tidy_up_but_stays_a_timeout(tmp_path: Path) -> None:
    assert "tidied" in timed_out("trap 'echo tidied; exit 0' TERM; while :; do sleep 0.02; done", "tidied", 0.2, 3, 20)


def test_a_stopped_command_is_ended_too() -> None:
    with pytest.raises(ToolTimeout):
        run_command("kill -STOP $$", timeout_s=0.2)


def test_many_commands_at_once_do_not_disturb_each_other() -> None:
    results: list[CommandResult] = []
    threads = [threading.Thread(target=lambda: results.append(run_command("echo hi; exit 5"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [(r.exit_code, r.stdout) for r in results] == [(5, "hi\n")] * 16


def test_no_descriptor_and_no_process_is_left_behind() -> None:
    run_command("true")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        run_command("true")
    assert len(os.listdir("/proc/self/fd")) == before
