"""An app with an entry whose time does not come by itself while a test runs."""

from agentos.core.app import App, TaskContext

app = App()


@app.cron("@yearly", name="tick")
@app.task("tick")
async def tick(ctx: TaskContext) -> str:
    """What it returns is enough."""
    return ctx.task_id
