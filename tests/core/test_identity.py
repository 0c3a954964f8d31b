"""Which call is which: equal content is equal, and no two ways of naming a call can meet."""

from typing import Any

import pytest

from agentos.core.identity import prompt_identity, quick_tool_identity, tool_identity
from agentos.store.canonical import digest
from agentos.store.errors import InvalidValue


def test_the_order_of_keys_in_arguments_does_not_matter() -> None:
    one, two = ({"a": 1, "b": [2]}, {"b": [2], "a": 1})
    assert tool_identity("t", 1, "x", one, key=None, ordinal=0, nth=1) == tool_identity(
        "t", 1, "x", two, key=None, ordinal=0, nth=1
    )


def test_a_place_is_the_hash_of_one_canonical_list() -> None:
    """Its text is put together of pieces: `agentos.call_key` and every record so far go by the list."""
    arguments = {"b": [1.0, "\u00e9"], "a": {"x": None}}
    for nth in (1, None):
        place = tool_identity("t", 7, 'to"ol', arguments, key=None, ordinal=3, nth=nth)
        assert place.key == digest(["item-place", 7, 3, 'to"ol', arguments, nth])


def test_every_part_of_a_place_makes_another_call() -> None:
    base: dict[str, Any] = {"item_id": 1, "tool": "x", "arguments": "a", "key": None, "ordinal": 0, "nth": 1}
    changes: dict[str, Any] = {"item_id": 2, "tool": "y", "arguments": "b", "ordinal": 1, "nth": 2, "key": "k"}
    keys = {tool_identity("t", **{**base, name: value}).key for name, value in [*changes.items(), ("nth", 1)]}
    assert len(keys) == len(changes) + 1


def test_a_key_is_all_that_names_a_keyed_call_of_an_item() -> None:
    one = tool_identity("t", 1, "x", "a", key="k", ordinal=0, nth=None)
    two = tool_identity("t", 1, "y", "b", key="k", ordinal=7, nth=None)
    assert one.key == two.key
    assert one.key != tool_identity("t", 2, "x", "a", key="k", ordinal=0, nth=None).key


def test_the_parts_of_a_quick_call_cannot_be_shifted_into_each_other() -> None:
    keys = {quick_tool_identity(*parts).key for parts in (("ab", "c", "d"), ("a", "bc", "d"), ("a", "b", "cd"))}
    assert len(keys) == 3


def test_the_namespaces_do_not_meet() -> None:
    quick = quick_tool_identity("bash", "a", "t").key
    own = tool_identity("t", 1, "bash", "a", key=None, ordinal=0, nth=1).key
    prompt = prompt_identity("bash", "a", "m", "t").key
    assert len({quick, own, prompt}) == 3


def test_a_sample_is_another_output_and_none_is_not_zero() -> None:
    keys = {prompt_identity("plan", "p", "m", "t", sample=sample).key for sample in (None, 0, 1, "1")}
    assert len(keys) == 4


def test_the_preview_is_short_and_the_hash_is_of_the_whole_prompt() -> None:
    one, two = (prompt_identity("plan", "x" * 500 + end, "m", "t") for end in "ab")
    assert one.preview == two.preview == "x" * 200
    assert one.prompt_sha256 != two.prompt_sha256


@pytest.mark.parametrize("bad", ["\x00", "\ud800", float("nan"), b"bytes", {1: 2}])
def test_what_json_cannot_hold_is_refused_before_anything_happens(bad: object) -> None:
    with pytest.raises(InvalidValue):
        quick_tool_identity("bash", bad, "t")
    with pytest.raises(InvalidValue):
        prompt_identity("plan", bad, "m", "t")
    with pytest.raises(InvalidValue):
        tool_identity("t", 1, "bash", bad, key=None, ordinal=0, nth=1)
