"""Saying, once at the start of a process, that its database may lose what it acknowledges."""

from agentos.core.logs import get_logger
from agentos.store.calls.durability import unsafe_settings
from agentos.store.connect import OnConnection, connect

log = get_logger(__name__)


def warn_if_unsafe(dsn: str) -> None:
    """Raises DatabaseUnavailable and its neighbours."""
    with connect(dsn) as conn:
        found = OnConnection(conn).run(unsafe_settings())
    for setting, source in found.items():
        log.warning("a crash of the database server may lose what was acknowledged", setting=setting, set_by=source)
