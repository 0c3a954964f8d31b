"""Large values in parts: the same text comes back, and what did not change is not stored again."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.store import parts
from agentos.store.canonical import canonical_text
from agentos.store.parts import is_parted, join, missing, part

NAMES = st.sampled_from(["$parts", "$blob", "$list", "$dict", "a", "b"])
TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=30,
)  # fmt: skip


def fetched(text: str, stored: dict[str, bytes]) -> dict[str, bytes]:
    """What a reader asks for, level by level."""
    known: dict[str, bytes] = {}
    while wanted := missing(text, known):
        known |= {name: stored[name] for name in wanted}
    return known


@given(VALUES)
def test_what_was_parted_is_joined_to_the_same_text(value: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, size in (("WHOLE", 1), ("PART", 12), ("GROUP", 2)):
            patch.setattr(parts, name, size)
        text = canonical_text(value)
        found = part(text)
        if found is None:
            assert len(text) <= 1
            return
        assert is_parted(found.text)
        assert join(found.text, fetched(found.text, found.parts)) == text


def test_a_small_value_stays_whole_unless_it_looks_parted() -> None:
    assert part('{"n":1}') is None
    looks = canonical_text({"$parts": {"$blob": "x"}})
    found = part(looks)
    assert found is not None
    assert join(found.text, found.parts) == looks


def test_a_hundred_turns_of_a_long_conversation_store_each_message_once() -> None:
    """200,000 tokens, about 800 kB, in 100 messages; a snapshot after each."""
    stored: dict[str, bytes] = {}
    skeletons = whole = 0
    messages: list[dict[str, str]] = []
    for turn in range(100):
        messages.append({"role": "user", "content": f"{turn}:" + "word " * 1600})
        text = canonical_text({"turn": turn, "messages": messages})
        whole += len(text)
        found = part(text)
        skeletons += len(found.text if found else text)
        stored |= found.parts if found else {}
    kept = skeletons + sum(map(len, stored.values()))
    conversation = len(canonical_text(messages))
    assert 800_000 < conversation < 810_000
    assert whole > 40_000_000
    assert kept < 2 * conversation
