"""The tools of the audit. Those with an effect take it down in the effects log, and their probe looks there."""

import time
from pathlib import Path
from typing import Any

from agentos.core.app import NOT_DONE, App, Done, ToolCall
from agentos.demo import artifacts, distributions, effects


def look_into_log(call: ToolCall, arguments: dict[str, Any]) -> Any:
    """The probe: a call in doubt was done if, and only if, the log has its line; its result stands there."""
    found = effects.recorded(Path(arguments["folder"]), call.idempotency_key)
    return NOT_DONE if found is None else Done(found.result)


def register(app: App) -> None:
    """Give `app` its tools."""

    @app.tool("list_distributions", on_doubt="retry")
    def list_distributions(arguments: dict[str, Any]) -> dict[str, Any]:
        return {"distributions": [each.as_json() for each in distributions.installed(arguments["limit"])]}

    @app.tool("verify_files", on_doubt="probe", probe=look_into_log, safe_to_repeat=True)
    def verify_files(call: ToolCall, arguments: dict[str, Any]) -> dict[str, Any]:
        began = time.time()
        result = distributions.verify(
            arguments["item"], arguments["site"], arguments["first"], arguments["last"]
        )  # fmt: skip
        effects.append(arguments["folder"], call, "verify_files", arguments, began, result)
        return result

    @app.tool("check_requirements", on_doubt="probe", probe=look_into_log, safe_to_repeat=True)
    def check_requirements(call: ToolCall, arguments: dict[str, Any]) -> dict[str, Any]:
        began = time.time()
        result = distributions.check_requirements(arguments["item"], arguments["site"])
        effects.append(arguments["folder"], call, "check_requirements", arguments, began, result)
        return result

    @app.tool(
        "write_artifact", on_doubt="probe", probe=look_into_log, produces=artifacts.produced, safe_to_repeat=True
    )  # fmt: skip
    def write_artifact(call: ToolCall, arguments: dict[str, Any]) -> dict[str, Any]:
        began = time.time()
        result = artifacts.write(Path(arguments["folder"]) / arguments["name"], arguments["text"])
        effects.append(arguments["folder"], call, "write_artifact", arguments, began, result)
        return result
