"""What can be set, in one place: every setting, its environment variable, its unit and its default.

The environment variable of a setting is its name in capitals after `AGENTOS_`: `ttl_s` is `AGENTOS_TTL_S`. A variable
that is set to nothing counts as not set, so that `AGENTOS_DSN= agentos up` means the embedded database.
"""

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from agentos.store.errors import ConfigInvalid
from agentos.store.urls import is_remote, local_path, normal_url

PREFIX = "AGENTOS_"
LogFormat = Literal["auto", "json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]
Days = Annotated[float, Field(ge=1, le=36_500, allow_inf_nan=False)] | None
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


Folder = Annotated[Path, AfterValidator(_absolute)]


def default_data_dir() -> Path:
    """Where the embedded database lives unless `AGENTOS_DATA_DIR` says otherwise.

    For root a system state directory, not root's home: the embedded server runs as another user then and has every
    folder above its data opened to it, which must never happen to a home.
    """
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/agentos")
    import platformdirs  # noqa: PLC0415  start-up: only who is not root and set no folder needs it

    return platformdirs.user_data_path("agentos", appauthor=False)


class Settings(BaseModel):
    """The settings of one process, checked and frozen. Make it with `load_settings`."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        hide_input_in_errors=True,  # a DSN or key that is refused must not be shown by the refusal
    )

    dsn: str | None = Field(default=None, repr=False)
    """`postgresql://…` of the server to use; default: the embedded one. Not in the repr: it may hold a password."""
    pooler: Literal["auto", "transaction", "none"] = "auto"
    """Whether a transaction pooler such as PgBouncer is in front of the server; `auto`: found out at the first
    connection. Behind one nothing is prepared and workers poll instead of listening."""
    allow_plaintext: bool = False
    """Whether a connection to another host may go without TLS; so says `sslmode=disable` in a DSN for that one."""
    data_dir: Folder = Field(default_factory=default_data_dir)
    """Folder of the embedded database."""
    artifact_dir: Folder | None = None
    """Folder for artifacts on this host; default: `artifacts` in `data_dir` (see `artifact_folder`)."""
    artifacts: str | None = None
    """Where `ctx.artifact` stores: a folder, or a URL that every host reaches (`s3://bucket/prefix`). Default: the
    artifact folder (see `artifact_store`)."""
    evidence_roots: tuple[Folder, ...] | None = None
    """Folders that evidence may look into, joined by `:` (`;` on Windows). Default: the current directory, the
    system's temp folder and the artifact folder, resolved when evidence is checked. The artifact
    store is always one."""
    evidence_urls: tuple[str, ...] = ()
    """URLs below which evidence may name files, joined by commas: `s3://bucket/prefix`. The artifact store is always
    one; default: no other."""
    evidence_role: str | None = None
    """Role under which evidence reads rows in Postgres (SET LOCAL ROLE); default: the login's own."""
    evidence_timeout_s: Seconds = 30.0
    """Seconds that the check of a URL, or a check of the app's own, may take; then the evidence does not hold."""
    evidence_max_mb: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1024.0
    """MiB of the largest file behind a URL that is read to check its content."""

    ttl_s: Seconds = 15.0
    """Seconds without a beat after which a worker counts as dead and its leases are taken back."""
    beat_s: Seconds = Field(default_factory=lambda known: min(5.0, known["ttl_s"] / 3))
    """Seconds between two beats; at most a third of `ttl_s`, so that two lost beats kill nobody. Default: 5, or a
    third of `ttl_s` where that is less."""
    sweep_s: Seconds = 1.0
    """Seconds between two looks of the coordinator for workers that stopped beating."""
    gone_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 0.6
    """Seconds that all sessions of a worker must be gone from the server before the coordinator takes its leases back,
    though its TTL has not ended; 0: only the TTL counts."""
    promote_s: Seconds = Field(default_factory=lambda known: float(known["sweep_s"]))
    """Seconds between two looks for due items, besides those when one is due. Default: as `sweep_s`."""
    deadlines_s: Seconds = Field(default_factory=lambda known: float(known["sweep_s"]))
    """The same for tasks that have passed their deadline. Default: as `sweep_s`."""
    repair_s: Seconds = 5.0
    """Seconds between two slices of repairs, of 2,000 tasks each."""
    tidy_s: Seconds = 30.0
    """Seconds between two rounds that forget workers long gone and parts nobody refers to."""
    partitions_s: Seconds = 3600.0
    """Seconds between two looks whether the day partitions of the next week are there."""
    retention_s: Seconds = 600.0
    """Seconds between two looks for what is kept no longer."""
    retention_tasks_d: Days = 30.0
    """Days for which a task that has ended is kept with all there is of it; `never` goes: None. So are all of these."""
    retention_checkpoints_d: Days = Field(default_factory=lambda known: known["retention_tasks_d"])
    """Days after its task's end for which a checkpoint is kept, at most as its task. Default: as its task."""
    retention_ledger_d: Days = Field(default_factory=lambda known: known["retention_tasks_d"])
    """The same for recorded tool calls."""
    retention_cache_d: Days = Field(default_factory=lambda known: known["retention_tasks_d"])
    """The same for outputs of models."""
    retention_outcomes_d: Days = Field(default_factory=lambda known: known["retention_tasks_d"])
    """Days for which outcomes are kept, at least as tasks; of a task that is there they stay. Default: as tasks."""
    retention_blobs_s: Annotated[float, Field(ge=1, le=31_536_000, allow_inf_nan=False)] | None = 600.0
    """Seconds for which a part of large values is kept that nothing refers to any more; None: for ever."""
    retention_events_d: Days = 14.0
    """Days for which events are kept; those of tasks that have not ended stay."""
    retention_usage_d: Days = 400.0
    """Days for which is kept what models cost a task; never before the task has gone."""
    retention_retired_d: Days = 400.0
    """Days for which is known that a task was retired."""
    statistics_s: Seconds = 10.0
    """Seconds between two counts of the coordinator (depth, age and throughput by queue and kind)."""
    stuck_s: Seconds = 30.0
    """Seconds between two looks of the coordinator for work that stands still; two looks in a row make it told."""
    silent_s: Seconds = 3600.0
    """Seconds after which a running attempt that recorded nothing counts as standing still."""
    cron_s: Seconds = 5.0
    """Seconds between two looks of the coordinator for cron entries, besides those when one is due."""
    poll_s: Seconds = 1.0
    """Seconds between two looks for work of an idle worker, before jitter."""
    grace_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 25.0
    """Seconds that a stopping worker gives running handlers to reach a checkpoint; 0 hands them back at once."""
    cancel_grace_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 2.0
    """Seconds that a handler may take to end when it is cancelled; then its end is written without it."""
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 8
    """Handlers that one worker runs at the same time."""
    prefetch: Annotated[int, Field(ge=0, le=10_000)] | None = None
    """Items that a worker may hold beyond those it runs; 0: none. Default: as many as its handlers finished in the last
    50 ms, at most 500."""

    shell_timeout_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 3600.0
    """Seconds that a command of the `bash` tool may run, unless its call or tool says otherwise; 0: no limit. So are
    all limits of commands: defaults, and 0 means none."""
    shell_memory_mb: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 8192.0
    """MiB of memory of a command with all its processes."""
    shell_processes: Annotated[int, Field(ge=0)] = 1024
    """Processes of a command at the same time."""
    shell_file_mb: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 16384.0
    """MiB of the largest file that a command may write."""
    shell_cpu_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 3600.0
    """Seconds of processor that each process of a command may use."""
    shell_output_kb: Annotated[int, Field(ge=1, le=1_048_576)] = 64
    """KiB kept of the end of a command's stdout and of its stderr."""
    shell_sandbox: Literal["none", "bwrap"] = "none"
    """`bwrap`: every command runs in bubblewrap; a call cannot lift that."""
    shell_network: bool = False
    """Whether a command in a sandbox shares the host's network, unless its call says otherwise."""
    shell_env: tuple[str, ...] = ()
    """Names (or patterns such as `MYAPP_*`) of environment variables that commands get beside the usual ones, joined by
    commas."""
    shell_readable: tuple[Folder, ...] = ()
    """Folders below the home or another hidden folder that a command in a sandbox may read, joined by `:`."""

    codec: str | None = None
    """`module:object` of the codec that seals content before it is stored, or of a list of codecs; see store.codec."""

    llm_base_url: str | None = None
    """Base URL of an OpenAI-compatible endpoint, up to and including its version, as in `https://host/v1`."""
    llm_model: str | None = None
    """Name of the model at that endpoint."""
    llm_prices: str | None = None
    """Prices of a million tokens as JSON, `{"model": {"input": "2.50", "output": "10"}}`; "*": any other model."""
    llm_api_key: SecretStr | None = None
    """Its key; sent as a bearer token. An endpoint without keys needs none."""

    llm_keep_requests: bool = True
    """Whether what a model was asked is kept, each message once; else only its hash and its first 200 characters."""

    health_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """Port of /livez, /readyz and /metrics of a worker or coordinator; 0 picks one and logs it. Default: none."""
    health_host: str | None = None
    """Address that the health port listens on. Default: all of this host, of IPv4 and IPv6."""

    log_format: LogFormat = "auto"
    """`json`, `console`, or `auto`: console on a terminal, JSON elsewhere."""
    log_level: LogLevel = "info"

    @property
    def artifact_folder(self) -> Path:
        """Folder for artifacts on this host: `artifact_dir`, or its default."""
        return self.artifact_dir or self.data_dir / "artifacts"

    @property
    def artifact_store(self) -> str:
        """Where artifacts are stored: a URL, or an absolute folder."""
        return self.artifacts or str(self.artifact_folder)

    @field_validator("log_format", "log_level", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator(
        "retention_tasks_d", "retention_checkpoints_d", "retention_ledger_d", "retention_cache_d", "retention_events_d",
        "retention_usage_d", "retention_retired_d", "retention_outcomes_d", "retention_blobs_s", mode="before",
    )  # fmt: skip
    @classmethod
    def _never(cls, value: object) -> object:
        return None if isinstance(value, str) and value.strip().lower() == "never" else value

    @field_validator("artifacts")
    @classmethod
    def _is_place(cls, value: str | None) -> str | None:
        if not value:
            return None
        return normal_url(value) if is_remote(value) else str(_absolute(Path(local_path(value))))

    @field_validator("evidence_urls")
    @classmethod
    def _are_urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if local := [each for each in value if not is_remote(each)]:
            raise ValueError(f"{local[0]!r} is no URL; folders belong into {_variable('evidence_roots')}")
        return tuple(normal_url(each) for each in value)

    @field_validator("shell_env", "evidence_urls", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("evidence_roots", "shell_readable", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value

    @field_validator("dsn")
    @classmethod
    def _is_dsn(cls, value: str | None) -> str | None:
        if value and not value.startswith(("postgresql://", "postgres://")):
            raise ValueError("is not a DSN; write it as postgresql://user:password@host:5432/database")
        return value

    @field_validator("llm_base_url")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("is not a URL; write it as https://host/v1")
        return value

    @model_validator(mode="after")
    def _beat_fits_ttl(self) -> Self:
        if self.beat_s > self.ttl_s / 3 + 1e-9:
            raise ValueError(
                f"{_variable('beat_s')} is {self.beat_s:g} s, which is more than a third of {_variable('ttl_s')} "
                f"({self.ttl_s:g} s); set the beat to at most {self.ttl_s / 3:g}, "
                f"or the TTL to at least {self.beat_s * 3:g}"
            )
        return self

    @model_validator(mode="after")
    def _records_go_with_their_task(self) -> Self:
        for name in ("retention_checkpoints_d", "retention_ledger_d", "retention_cache_d"):
            days, tasks_d = getattr(self, name), self.retention_tasks_d
            if tasks_d is not None and (days is None or days > tasks_d):
                raise ValueError(
                    f"{_variable(name)} is longer than {_variable('retention_tasks_d')} ({tasks_d:g} days): "
                    "records go with their task at the latest"
                )
        outcomes_d = self.retention_outcomes_d
        if outcomes_d is not None and (self.retention_tasks_d is None or outcomes_d < self.retention_tasks_d):
            raise ValueError(
                f"{_variable('retention_outcomes_d')} is shorter than {_variable('retention_tasks_d')}: the outcomes "
                "of a task stay while it is there; leave it away, or set it to as long at least"
            )
        return self


def load_settings(**overrides: object) -> Settings:
    """The settings from `overrides`, then from the environment, then the defaults.

    `overrides` are by the names of `Settings`; one that is None counts as not given (an option that was not typed).

    Raises ConfigInvalid: if a value cannot be used; it names the environment variable and the fix, never a secret.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        if all(isinstance(value, _SIMPLE) for value in given.values()):
            typed = tuple((name, type(value), value) for name, value in given.items())
            return _settings_of(tuple(os.environ.items()), _here(), typed)
        return _made(given)
    except ValidationError as error:
        # A default that could not be made because the setting it follows is invalid is not a mistake of its own.
        found = [e for e in error.errors(include_input=False) if e["type"] != "default_factory_not_called"]
    raise _config_invalid(
        [(str(e["loc"][0]) if e["loc"] else "", e["msg"].removeprefix("Value error, ")) for e in found]
    )


_SIMPLE = (str, int, float, Path)


@lru_cache(maxsize=16)
def _settings_of(
    _environment: tuple[tuple[str, str], ...], _folder: str | None, given: tuple[tuple[str, type, object], ...]
) -> Settings:
    """Made once for the same surroundings: it takes 0.1 ms, and every connection that is opened asks twice."""
    return _made({name: value for name, _, value in given})


def _made(given: Mapping[str, object]) -> Settings:
    """`given` before the environment, where the case of a name does not matter, and '' is as good as not set."""
    names = {f"{PREFIX}{name}".lower(): name for name in Settings.model_fields}
    found = {
        names[variable.lower()]: value for variable, value in os.environ.items() if value and variable.lower() in names
    }
    return Settings.model_validate({**found, **given})


def _here() -> str | None:
    """What relative folders are taken from; None: it is gone."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _config_invalid(mistakes: list[tuple[str, str]]) -> ConfigInvalid:
    variables = [_variable(name) for name, _ in mistakes if name in Settings.model_fields]
    hint = (
        f"set {', '.join(variables)} (or the option) to such a value, or unset it for the default"
        if variables
        else None
    )
    return ConfigInvalid("; ".join(_sentence(name, message) for name, message in mistakes), hint=hint)


def _sentence(name: str, message: str) -> str:
    if name == "":
        return message
    if name not in Settings.model_fields:
        return f"there is no setting {name!r}; the settings are {', '.join(Settings.model_fields)}"
    return f"{_variable(name)}: {message[0].lower()}{message[1:]}"


def _variable(name: str) -> str:
    return f"{PREFIX}{name}".upper()
