"""Which roles there are and what each may call: sql/grants.txt, read."""

import re
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

_PACKAGED = files("agentos.store") / "sql"
_CHECKOUT = Path(__file__).parents[3] / "sql"

SQL: Traversable = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT
"""The directory of the .sql files: `agentos/store/sql` in a wheel, `sql/` in a checkout."""

OWNER = "owner"
DUTIES = ("submitter", "worker", "coordinator", "reader")
"""What a role may be for, beside the owner, who migrates."""
PREFIX = "agentos_"

_LINE = re.compile(r"(\w+): (-|[a-z ]+)")
_DENIED = re.compile(r"permission denied for (function|procedure) (\w+)")


@lru_cache(maxsize=1)
def granted() -> dict[str, tuple[str, ...]]:
    """The duties that may call each function; none: only other functions do."""
    found: dict[str, tuple[str, ...]] = {}
    for line in (SQL / "grants.txt").read_text("utf-8").splitlines():
        if match := _LINE.fullmatch(line):
            found[match[1]] = () if match[2] == "-" else tuple(match[2].split())
    return found


def fix_of(message: str) -> str:
    """What helps against a refusal of the server (SQLSTATE 42501)."""
    denied = _DENIED.search(message)
    duties = granted().get(denied[2], ()) if denied else ()
    if duties:
        roles = " or ".join(f"{PREFIX}{duty}" for duty in duties)
        return f"grant this login the role that may (at the default prefix: GRANT {roles} TO ...), or use another login"
    if denied:
        return "only the schema's owner may; use a login that is granted that role"
    return "grant the role what `agentos migrate --help` lists, or use another role"
