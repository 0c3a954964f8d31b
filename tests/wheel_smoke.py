"""Run by .ci/run outside the checkout: every public name, every script and the SQL come from the installed wheel."""

import importlib
import sys
from importlib.metadata import entry_points, version
from importlib.resources import files
from pathlib import Path

PUBLIC = {
    "agentos.core.task": ["TaskManager"],
    "agentos.core.runner": ["TaskRunner"],
    "agentos.core.checkpoints": ["CheckpointManager", "Checkpoint", "Evidence", "EvidenceType", "EvidencePack"],
    "agentos.core.idempotency": ["LLMOutputCache", "ToolLedger"],
    "agentos.core.worker_pool": ["LeaseManager"],
    "agentos.core.app": ["App", "TaskContext"],
    "agentos.core.errors": ["AgentOSError", "LeaseLost", "TaskHeld", "ConfigInvalid"],
    "agentos.core.logs": ["configure_logs", "get_logger", "bind_item"],
    "agentos.store": ["get_db"],
    "agentos.worker": [],
    "agentos.coordinator": [],
    "agentos.cli": [],
    "agentos.demo": [],
}
SCRIPTS = {"agentos", "agentos-worker", "agentos-coordinator"}


def main() -> None:
    for module, names in PUBLIC.items():
        loaded = importlib.import_module(module)
        assert Path(loaded.__file__ or "").is_relative_to(sys.prefix), f"{module} is {loaded.__file__}, not the wheel's"
        missing = [name for name in names if not hasattr(loaded, name)]
        assert not missing, f"{module} lacks {missing}"
    for package in ("core", "store", "worker", "coordinator", "cli", "demo"):
        assert (files(f"agentos.{package}") / "py.typed").is_file(), f"agentos.{package} lacks py.typed"

    found = {script.name: script for script in entry_points(group="console_scripts") if script.name in SCRIPTS}
    assert set(found) == SCRIPTS, f"scripts: {sorted(found)}"
    assert all(callable(script.load()) for script in found.values())

    migrations = sorted((files("agentos.store") / "sql" / "migrations").iterdir(), key=lambda file: file.name)
    functions = list((files("agentos.store") / "sql" / "functions").iterdir())
    assert "create table" in migrations[0].read_text(encoding="utf-8").lower(), migrations[0].name
    assert functions, "no SQL functions in the wheel"
    print(
        f"agentos-pool {version('agentos-pool')}: {sum(map(len, PUBLIC.values()))} public names, {len(found)} scripts, "
        f"{len(migrations)} migrations and {len(functions)} function files, all from the wheel"
    )


if __name__ == "__main__":
    main()
