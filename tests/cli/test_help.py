"""Help that teaches, at once."""

import resource
import subprocess
import sys

import pytest
from tests.cli.conftest import Command

from agentos.cli.catalogue import COMMANDS


def test_help_lists_every_command_and_the_exit_codes(agentos: Command) -> None:
    done = agentos("--help")
    assert done.returncode == 0
    for entry in COMMANDS:
        assert f"  {entry.name} " in done.stdout
        assert entry.line in done.stdout
    assert "Exit codes" in done.stdout


def test_help_answers_within_half_a_second_of_the_processor() -> None:
    def used() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    def seconds() -> float:
        began = used()
        subprocess.run([sys.executable, "-m", "agentos.cli", "--help"], check=True, capture_output=True)
        return used() - began

    assert min(seconds() for _ in range(5)) < 0.5


def test_help_loads_neither_drivers_nor_rich() -> None:
    code = (
        "import sys, agentos.cli.__main__ as m\ntry: m.main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(any(name in sys.modules for name in ('asyncpg', 'psycopg', 'pydantic', 'rich', 'agentos.store')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("name", [entry.name for entry in COMMANDS if entry.name != "db"])
def test_every_command_teaches_with_examples(agentos: Command, name: str) -> None:
    done = agentos(name, "--help")
    assert done.returncode == 0
    assert f"agentos {name}" in done.stdout.partition("Examples:")[2]
    assert "--json" in done.stdout


def test_a_command_that_does_not_exist_is_a_usage_error(agentos: Command) -> None:
    done = agentos("submitt", "shell")
    assert done.returncode == 2
    assert "Did you mean 'submit'?" in done.stderr


def test_the_version_is_told(agentos: Command) -> None:
    assert agentos("--version").stdout[0].isdigit()
