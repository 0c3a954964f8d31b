"""Postgres: settings, connections, migrations and the typed table of SQL calls."""
