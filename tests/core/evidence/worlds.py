"""Parts of the worlds that the tests check evidence in."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import psycopg

from agentos.core.evidence import LocalWorld, RecordedExit

MakeWorld = Callable[..., LocalWorld]


def no_database() -> AbstractContextManager[psycopg.Connection[Any]]:
    raise AssertionError("this check must not ask a database")


def nothing_recorded(command: str | None) -> RecordedExit | None:
    return None


# Names and values that would do harm, or find something, if they were ever read as SQL.
INJECTIONS = [
    "orders; DROP TABLE orders; --",
    'orders" WHERE true; --',
    '"orders"',
    'public."orders"',
    "orders--",
    "orders/*",
    "(SELECT 1)",
    "orders, pg_sleep(5)",
    "Orders",
    "ORDERS",
    "\N{CYRILLIC SMALL LETTER O}rders",
    "\N{FULLWIDTH LATIN SMALL LETTER O}rders",
    "orders ",
    " orders",
    "orders\n",
    "public..orders",
    ".orders",
    "orders.",
    "%s",
    "%(table)s",
    "%",
    "$1",
    "'; SELECT pg_sleep(5); --",
    "pg_sleep(5)",
    "x" * 10_000,
]
