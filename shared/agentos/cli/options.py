"""Options that many commands have."""

from typing import Annotated

import typer

Dsn = Annotated[
    str | None, typer.Option(metavar="URL", help="postgresql://… (default: AGENTOS_DSN, else the embedded database).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")]
TaskId = Annotated[str, typer.Argument(metavar="TASK", help="The task's id.")]
Priority = Annotated[int, typer.Option(min=-1_000_000, max=1_000_000, help="Each step is worth a minute of waiting.")]
Timeout = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", min=0, help="Stop waiting after so long (exit code 4); the task goes on."),
]
