"""Putting large values together again."""

from agentos.store.calls.blobs import get_blobs
from agentos.store.parts import is_parted, join, missing
from agentos.store.run import Flow, do


def joined(text: str) -> Flow[str | None]:
    """The canonical text of a stored one, which may be in parts. None: some of them are gone."""
    if not is_parted(text):
        return text
    known: dict[str, bytes] = {}
    while wanted := missing(text, known):
        found = yield from do(get_blobs(sorted(wanted)))
        if not found:
            return None
        known |= found
    return join(text, known)
