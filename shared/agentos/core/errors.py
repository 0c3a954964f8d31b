"""The errors of agentos, for users: `from agentos.core.errors import LeaseLost`."""

from agentos.store.errors import *  # noqa: F403  one registry, two doors
