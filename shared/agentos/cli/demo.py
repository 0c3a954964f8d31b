"""`agentos demo`: hands its arguments to `python -m agentos.demo`."""

import runpy
import sys

import typer


def demo(ctx: typer.Context) -> None:
    """Watch real work survive a killed worker: the audit of this Python environment."""
    sys.argv = ["agentos demo", *ctx.args]
    runpy.run_module("agentos.demo", run_name="__main__", alter_sys=False)


demo.context_settings = {  # type: ignore[attr-defined]  # read by __main__: the demo knows its own options and --help
    "allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": [],
}  # fmt: skip
