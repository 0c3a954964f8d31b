"""Sealing content that travels inside other JSON, which the engine takes apart: the payloads of a list of items."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from agentos.store.canonical import canonical_text
from agentos.store.codec import MARK, codecs, seal
from agentos.store.errors import InvalidInput


def seal_field(item: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object with its field `name` sealed. Raises InvalidValue, ValueTooLarge, CodecFailed."""
    if not codecs() or name not in item:
        return item
    return {**item, name: json.loads(seal(canonical_text(item[name], what=name)))}


def plain_array(payloads: list[Any], limit: int) -> str | None:
    """All of them as one JSON array, written at once; None: each has to be looked at for itself, because there is a
    codec, or something is not right with one of them.
    """
    if codecs():
        return None
    try:
        text = canonical_text(payloads, limit=limit)
    except InvalidInput:
        return None
    return None if f'{{"{MARK}":' in text else text


def seal_payloads(items: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The items with their payloads sealed, as `create_task` and `expand` take them."""
    return [seal_field(item, "payload") for item in items]
