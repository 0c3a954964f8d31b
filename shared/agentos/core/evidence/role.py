"""As whom evidence reads the database: as the login of this process, or as the role that AGENTOS_EVIDENCE_ROLE names.

Evidence is a claim of a handler, and what it may look at is a matter of grants: it is read by a plain connection of
this process, never by a function with its owner's rights. A role of its own can see less than the process does, or,
where the process may read no table at all, more: `agentos_reader` for `tasks`.
"""

from typing import Any

import psycopg

from agentos.store.connect import connect
from agentos.store.errors import MissingPrivilege
from agentos.store.settings import load_settings


def take_role(cursor: psycopg.Cursor[Any]) -> None:
    """Read as that role until the transaction ends.

    Raises MissingPrivilege: if this login may not. That is no verdict: nothing was found out about the claim.
    """
    role = load_settings().evidence_role
    if role is None:
        return
    try:
        cursor.execute("SELECT set_config('role', %s, true)", (role,))
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidParameterValue) as exc:
        raise MissingPrivilege(
            f"AGENTOS_EVIDENCE_ROLE: {exc.diag.message_primary}",
            hint=f"GRANT {role} TO the login of this process, or unset the variable",
        ) from exc


def require_role(dsn: str) -> None:
    """Before anything is claimed. Raises MissingPrivilege: as above, DatabaseUnavailable."""
    if load_settings().evidence_role is not None:
        with connect(dsn) as conn, conn.transaction(force_rollback=True), conn.cursor() as cursor:
            take_role(cursor)
