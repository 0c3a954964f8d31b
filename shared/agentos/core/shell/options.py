"""How commands are run: as AGENTOS_SHELL_* say, over that as a tool declares, over that as a call asks."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agentos.core.shell.limits import Limits
from agentos.core.shell.result import OUTPUT_LIMIT
from agentos.core.shell.sandbox import SandboxName, check_sandbox
from agentos.store.errors import InvalidArguments
from agentos.store.settings import Settings

LIMIT_NAMES = ("memory_mb", "processes", "file_mb", "cpu_s")
OPTION_NAMES = ("timeout_s", *LIMIT_NAMES, "output_kb", "sandbox", "network")
"""What a tool may declare and a call may ask for."""


@dataclass(frozen=True, slots=True)
class ShellOptions:
    """`timeout_s`: seconds for the command. `output_limit`: bytes kept of stdout and of stderr each. `network`: counts
    in a sandbox only. `env`: names passed on besides the usual. `readable`, `hidden`: folders, see `Sandbox`.
    """

    timeout_s: float | None = None
    limits: Limits = field(default_factory=Limits)
    output_limit: int = OUTPUT_LIMIT
    sandbox: SandboxName = "none"
    network: bool = False
    env: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()

    def with_asked(self, asked: Mapping[str, Any]) -> "ShellOptions":
        """These, with what `asked` has of `OPTION_NAMES`; null counts as not asked. A sandbox is never lifted by it.

        Raises InvalidArguments: if a value makes no sense.
        """
        asked = {name: asked[name] for name in OPTION_NAMES if asked.get(name) is not None}
        if not asked:
            return self
        for name in ("timeout_s", "output_kb"):
            _require_number(name, asked.get(name, 1))
        if not isinstance(asked.get("network", False), bool):
            raise InvalidArguments(f"network is {asked['network']!r}", hint="use true or false")
        sandbox = check_sandbox(asked.get("sandbox", self.sandbox))
        return replace(
            self,
            timeout_s=asked.get("timeout_s", self.timeout_s),
            limits=replace(self.limits, **{name: asked[name] for name in LIMIT_NAMES if name in asked}),
            output_limit=int(asked["output_kb"] * 1024) if "output_kb" in asked else self.output_limit,
            sandbox=self.sandbox if self.sandbox != "none" else sandbox,
            network=asked.get("network", self.network),
        )


def _require_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise InvalidArguments(f"{name} is {value!r}", hint="pass a number above 0, or leave it out")


def shell_options(settings: Settings) -> ShellOptions:
    """As AGENTOS_SHELL_* say."""
    return ShellOptions(
        timeout_s=settings.shell_timeout_s or None,
        limits=Limits(
            memory_mb=settings.shell_memory_mb or None, processes=settings.shell_processes or None,
            file_mb=settings.shell_file_mb or None, cpu_s=settings.shell_cpu_s or None,
        ),
        output_limit=settings.shell_output_kb * 1024,
        sandbox=settings.shell_sandbox,
        network=settings.shell_network,
        env=settings.shell_env,
        readable=tuple(str(each) for each in settings.shell_readable),
        hidden=(str(settings.data_dir),),
    )  # fmt: skip
