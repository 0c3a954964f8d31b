"""COMMAND_EXIT: the exit code that the ledger recorded, or that of running the command again where evidence asks."""

from agentos.core.evidence.claim import Evidence
from agentos.core.evidence.verdict import Refuted
from agentos.core.evidence.world import World
from agentos.core.shell import run_command
from agentos.store.errors import InvalidInput, ToolTimeout

RERUN_TIMEOUT_S = 30.0
_SHOWN = 120


def command_exit(evidence: Evidence, world: World) -> str:
    """Why the claim holds. Raises Refuted: if it does not."""
    if evidence.metadata.get("rerun"):
        return _compared(_rerun(evidence, world), evidence, f"run again, {_quoted(evidence.metadata['command'])}")
    command = evidence.metadata.get("command")
    recorded = world.recorded_exit_code(command)
    if recorded is None:
        wanted = "of this task" if command is None else f"with the command {_quoted(command)}"
        raise Refuted(f"nothing recorded: the ledger has no finished call {wanted} before this checkpoint")
    if recorded.exit_code is None:
        raise Refuted(f"the recorded call {_quoted(recorded.command)} of {recorded.tool_name} has no exit code")
    return _compared(recorded.exit_code, evidence, f"the recorded call {_quoted(recorded.command)}")


def _rerun(evidence: Evidence, world: World) -> int:
    if not world.may_rerun:
        raise Refuted("the evidence asks to run its command again, which this process may not do")
    timeout_s = float(evidence.metadata.get("timeout_s", RERUN_TIMEOUT_S))
    try:
        return run_command(evidence.metadata["command"], cwd=world.cwd, timeout_s=timeout_s).exit_code
    except (ToolTimeout, InvalidInput) as error:
        raise Refuted(error.message) from None


def _compared(exit_code: int, evidence: Evidence, subject: str) -> str:
    expected = evidence.expected["exit_code"]
    if exit_code != expected:
        raise Refuted(f"{subject} exited with {exit_code}, expected {expected}")
    return f"{subject} exited with {exit_code}"


def _quoted(command: str) -> str:
    return repr(command if len(command) <= _SHOWN else f"{command[:_SHOWN]}…")
