"""Versions of handlers: a task is pinned to one when it is submitted, and only workers that accept it claim it."""

from collections.abc import Iterable

from agentos.core.payloads import BUILT_IN
from agentos.store.errors import ConfigInvalid, InvalidInput

NEWEST = 1_000_000
ACCEPTED = 32
"""Each version that a worker accepts is a lane more that its claims look at."""


def accepted_versions(kind: str, version: int, accepts: Iterable[int] | None) -> frozenset[int]:
    """What a handler runs. Raises ConfigInvalid: if its own version is not among it, or it is too much."""
    if not _fits(version):
        raise ConfigInvalid(f"{kind!r}: version is {version!r:.40}", hint=f"use a whole number from 0 to {NEWEST}")
    given = list(accepts) if accepts is not None else [version]
    if version not in given or len(given) > ACCEPTED or not all(_fits(each) for each in given):
        raise ConfigInvalid(
            f"{kind!r}: version is {version}, accepts is {given!r:.80}",
            hint=f"accepts=range({max(version - 1, 0)}, {version + 1}) takes the last two: at most {ACCEPTED}, "
            "its own among them",
        )
    return frozenset(given)


def version_of(kind: str, declared: int | None, asked: int | None) -> int | None:
    """The version to submit with; None: the newest that a worker runs. Raises InvalidInput."""
    if asked is None:
        return 0 if kind in BUILT_IN else declared
    if not _fits(asked) or (asked and kind in BUILT_IN):
        raise InvalidInput(
            f"version is {asked!r:.40} for the kind {kind!r}",
            hint=f"use a whole number from 0 to {NEWEST}; the built-in kinds have version 0 only",
        )
    return asked


def _fits(version: object) -> bool:
    return isinstance(version, int) and not isinstance(version, bool) and 0 <= version <= NEWEST
