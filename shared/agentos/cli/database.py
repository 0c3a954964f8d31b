"""The database of one command."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from agentos.core.logs import configure_logs
from agentos.store.codec import show_sealed
from agentos.store.connect import Database, Target, open_target
from agentos.store.settings import Settings, load_settings
from agentos.store.transport import endpoints


def command_settings(dsn: str | None, *, log_level: str = "warning") -> Settings:
    """The settings, and logs set up: from `log_level` up unless AGENTOS_LOG_LEVEL says otherwise."""
    settings = load_settings(dsn=dsn, log_level=os.environ.get("AGENTOS_LOG_LEVEL") or log_level)
    configure_logs(settings.log_format, settings.log_level)
    return settings


@contextmanager
def opened(dsn: str | None) -> Iterator[Database]:
    """The database for the block, its schema checked. Raises DatabaseUnavailable, SchemaMissing and the like."""
    show_sealed()
    database = Database(open_target(command_settings(dsn)).dsn, max_size=2)
    try:
        yield database
    finally:
        database.close()


def described(target: Target, settings: Settings) -> str:
    """Which database, for people; never its password."""
    if target.embedded:
        return f"the embedded database in {settings.data_dir}"
    servers = ", ".join(f"{host or 'local socket'}:{port}" for host, port in endpoints(target.dsn))
    return f"{servers}{urlsplit(target.dsn).path}"
