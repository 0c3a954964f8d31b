"""The typed table of SQL calls: one function here per SQL function, grouped by the noun it is about.

A call is a value (`agentos.store.run.Call`); nothing happens until a `Database` runs it. Columns of type json travel
as text in both directions, so that what is stored is byte for byte what was hashed.
"""
