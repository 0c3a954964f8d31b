"""An agent that charges a customer; test_order_agent.py kills it where it hurts."""

from pathlib import Path
from typing import Any

from agentos.core.app import NOT_DONE, App, Done, TaskContext, ToolCall

app = App()
bank = Path("bank.log")  # a payment service that knows idempotency keys: one line for each charge


def look(call: ToolCall, arguments: dict[str, Any]) -> Any:
    known = bank.exists() and call.idempotency_key in bank.read_text()
    return Done({"charged": arguments["amount"]}) if known else NOT_DONE


@app.tool("charge", on_doubt="probe", probe=look)
def charge(call: ToolCall, arguments: dict[str, Any]) -> dict[str, Any]:
    with bank.open("a") as log:
        log.write(f"{call.idempotency_key}\n")
    return {"charged": arguments["amount"]}


@app.task("order")
async def order(ctx: TaskContext, amount: int) -> dict[str, Any]:
    await ctx.sleep(3600)  # the customer may still cancel
    return await ctx.tool("charge", {"amount": amount})
