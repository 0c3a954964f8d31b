"""The same handler before and after an upgrade: `old` runs version 1; `new` is version 2 and still runs 1."""

import os
from pathlib import Path

from agentos.core.app import App, TaskContext

old, new = App(), App()


def _told(app: str, ctx: TaskContext) -> str:
    with Path(os.environ["EFFECTS"]).open("a") as log:
        log.write(f"{app} {ctx.task_id} v{ctx.version}\n")
    return f"{app} ran {ctx.version}"


@old.task("report", version=1)
async def report(ctx: TaskContext) -> str:
    return _told("old", ctx)


@new.task("report", version=2, accepts=range(1, 3))
async def report_again(ctx: TaskContext) -> str:
    return _told("new", ctx)
