"""Postgres: settings, connections, migrations and the typed table of SQL calls."""

from agentos.store.connect import AsyncDatabase, Database, get_db
from agentos.store.settings import Settings, load_settings

__all__ = ["AsyncDatabase", "Database", "Settings", "get_db", "load_settings"]
