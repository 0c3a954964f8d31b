"""In which schema of the database the engine lives: `AGENTOS_SCHEMA`, or `agentos`.

Two pools in one database, or a trial beside a pool that works, each have a schema of their own. All SQL is static and
says `agentos.`; under another name each text is rewritten once and remembered.
"""

import os
import re
from functools import lru_cache
from typing import LiteralString

from agentos.store.errors import ConfigInvalid

DEFAULT = "agentos"
VARIABLE = "AGENTOS_SCHEMA"

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}")
_WRITTEN = re.compile(r"\bagentos(?=\.|'|;|_wake)")
"""Where a text names the schema: before a dot, in quotes, in CREATE SCHEMA, in the channel's name; not in messages."""


def schema() -> str:
    """The name. Raises ConfigInvalid: if it is not one that needs no quotes."""
    return _checked(os.environ.get(VARIABLE) or DEFAULT)


def in_schema(text: LiteralString) -> LiteralString:
    """A text of our SQL, which says `agentos.`, for the schema of this process."""
    name = schema()
    return text if name == DEFAULT else _rewritten(text, name)


@lru_cache(maxsize=16)
def _checked(name: str) -> str:
    if not _NAME.fullmatch(name) or name.startswith("pg_"):
        raise ConfigInvalid(
            f"{VARIABLE}: {name!r} cannot be the schema",
            hint="a name of small letters, digits and _, 40 at most, not beginning with a digit or pg_",
        )
    return name


@lru_cache(maxsize=1024)
def _rewritten(text: str, name: str) -> LiteralString:
    return _WRITTEN.sub(name, text)  # the name has passed `_checked`
