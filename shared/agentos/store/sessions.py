"""What the sessions of this process are called, all alike, so that the server can tell when none of them is left."""

import os
import secrets

from agentos.store import pooler

_names: dict[int, str] = {}
"""By process: a fork is another one."""


def process_name() -> str:
    """Random, for the life of this process: pids and host names come back."""
    return _names.setdefault(os.getpid(), secrets.token_hex(8))


def application_name(application: str, dsn: str) -> str:
    """What a connection is opened as: `agentos-beat 9c1d…`. Behind a pooler without the process: there a session is
    anybody's, and would be renamed at each transaction.
    """
    return application if pooler.known(dsn) else f"{application} {process_name()}"
