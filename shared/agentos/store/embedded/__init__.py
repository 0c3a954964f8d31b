"""The embedded Postgres: one server per user and machine, shared by every process, gone with the last of them.

The watchdog imports this package, so it imports nothing but the standard library.
"""

from agentos.store.embedded.server import EmbeddedServer
from agentos.store.embedded.status import EmbeddedStatus

__all__ = ["EmbeddedServer", "EmbeddedStatus"]
