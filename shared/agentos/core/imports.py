"""Modules that others import when they find them, and that this process has no use for."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(name: str) -> Iterator[None]:
    """For the block the module `name` cannot be imported, as if it were not installed; afterwards it can, by anybody.

    One that is imported already stays as it is.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # documented: the import system refuses it then
    try:
        yield
    finally:
        del sys.modules[name]
