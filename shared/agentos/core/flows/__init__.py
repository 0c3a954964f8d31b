"""The logic between calls, written once: generators over `agentos.store.run`, driven blocking or awaited.

A flow yields calls, user code and waits; it does no I/O of its own and holds no transaction.
"""
