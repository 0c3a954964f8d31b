"""The canonical form: what it writes, what it refuses and where, and that nothing is lost on the way back."""

import enum
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentos.store.canonical import MAX_DEPTH, canonical, canonical_text, digest, loads
from agentos.store.errors import InvalidInput, InvalidValue, ValueTooLarge

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
SAFE_INTEGERS = st.integers(-(2**53) + 1, 2**53 - 1)
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def json_values(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | numbers | TEXT
    return st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=30)


@UNHURRIED
@given(json_values(st.integers(-(10**60), 10**60)))
def test_a_value_without_floats_comes_back_exactly(value: Any) -> None:
    assert loads(canonical(value)) == value


@UNHURRIED
@given(FLOATS)
def test_a_float_comes_back_as_the_same_float(value: float) -> None:
    assert float(loads(canonical(value))) == value


@UNHURRIED
@given(json_values(st.integers() | FLOATS))
def test_canonical_of_what_was_loaded_is_the_same_bytes(value: Any) -> None:
    once = canonical(value)
    assert canonical(loads(once)) == once


@UNHURRIED
@given(json_values(SAFE_INTEGERS | FLOATS))
def test_bytes_are_those_of_rfc_8785(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@UNHURRIED
@given(st.dictionaries(st.text() | st.integers(), st.none() | st.booleans() | st.text() | st.integers() | FLOATS))
def test_the_text_is_the_bytes_and_refuses_what_they_refuse(value: Any) -> None:
    def said(write: Callable[[Any], bytes | str]) -> str:
        try:
            written = write(value)
        except InvalidValue as exc:
            return f"refused: {exc}"
        return written if isinstance(written, str) else written.decode()

    written = said(canonical)
    assert said(canonical_text) == written
    if written.startswith("refused"):
        return
    assert canonical_text(value, limit=len(written.encode())) == written
    with pytest.raises(ValueTooLarge):
        canonical_text(value, limit=len(written.encode()) - 1)


@UNHURRIED
@given(st.dictionaries(TEXT, st.integers()))
def test_the_order_of_insertion_does_not_matter(value: dict[str, int]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


@UNHURRIED
@given(json_values(SAFE_INTEGERS | FLOATS))
def test_the_limit_is_exact(value: Any) -> None:
    size = len(canonical(value))
    assert len(canonical(value, limit=size)) == size
    with pytest.raises(ValueTooLarge):
        canonical(value, limit=size - 1)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"), (-0.0, "0"), (1.0, "1"), (-1.5, "-1.5"), (1e15, "1000000000000000"), (1e16, "10000000000000000"),
        (1.25e17, "125000000000000000"), (1e20, "100000000000000000000"), (-1e20, "-100000000000000000000"),
        (1e21, "1e+21"), (1.5e300, "1.5e+300"), (0.001, "0.001"), (1e-5, "0.00001"), (1.5e-6, "0.0000015"),
        (1e-7, "1e-7"), (-2.5e-9, "-2.5e-9"), (5e-324, "5e-324"), (333333333.33333329, "333333333.3333333"),
        (2**53 + 1, "9007199254740993"), (-(10**30), "-1" + "0" * 30), (float(2**60), "1152921504606847000"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_ecmascript_writes_them_and_integers_exactly(number: float, text: str) -> None:
    assert canonical_text(number) == text


def test_keys_are_in_utf_16_order_where_code_points_would_differ() -> None:
    assert canonical_text({"\ufb33": 1, "\U0001f600": 2, "a": 3}) == '{"a":3,"\U0001f600":2,"\ufb33":1}'


def test_only_what_must_be_escaped_is_escaped() -> None:
    assert canonical_text('\x01\b\t\n\f\r\x1f"\\/\x7f\u2028é') == '"\\u0001\\b\\t\\n\\f\\r\\u001f\\"\\\\/\x7f\u2028é"'


def test_subclasses_are_written_as_what_they_stand_for() -> None:
    class Colour(enum.StrEnum):
        RED = "red"

    class Level(enum.IntEnum):
        LOW = 1

    class Loud(str):
        def __str__(self) -> str:
            return "LOUD"

    value = OrderedDict([("z", Colour.RED), ("a", (Level.LOW, True, None)), (Colour.RED, Loud("quiet"))])
    assert canonical_text(value) == '{"a":[1,true,null],"red":"quiet","z":"red"}'


class Plain(enum.Enum):
    MEMBER = "member"


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (math.nan, "$ is nan"), ([math.inf], "$[0] is inf"), ({"a": [1, {"b": -math.inf}]}, "$.a[1].b is -inf"),
        ("a\x00b", "NUL"), ({"k\x00": 1}, "NUL"), ("\ud800", "lone surrogate"), ({"\udfff": 1}, "lone surrogate"),
        ({"items": [0, 1, 2, {"name": b"x"}]}, "$.items[3].name is of type bytes"),
        ({"a b": {1}}, "$['a b'] is of type set"), ({1: 2}, "$ has a key of type int"),
        ({None: 2}, "key of type NoneType"), ({"a": {("x",): 1}}, "$.a has a key of type tuple"),
        (datetime.now(UTC), "datetime"), (Path("x"), "Path"), (object(), "object"), (Plain.MEMBER, "Plain"),
        (10**4300, "4300 digits"), (-(10**4300), "4300 digits"), (1 << 100_000_000, "4300 digits"),
    ],
    ids=lambda value: None if not isinstance(value, int) else "integer",
)  # fmt: skip
def test_what_json_in_postgres_cannot_hold_is_refused_with_its_place(value: object, place: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        canonical(value, what="payload")
    assert place in caught.value.message
    assert caught.value.message.startswith("payload cannot be stored: $")
    assert caught.value.hint
    str(caught.value).encode()


def test_the_largest_integer_is_written_and_read_back() -> None:
    assert loads(canonical(10**4300 - 1)) == 10**4300 - 1


def nested(levels: int, brackets: str = "[]") -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value] if brackets == "[]" else {"a": value}
    return value


@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_depth_is_bounded_exactly(brackets: str) -> None:
    assert loads(canonical(nested(MAX_DEPTH, brackets))) == nested(MAX_DEPTH, brackets)
    for levels in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(InvalidValue, match="deeper than 100 levels"):
            canonical(nested(levels, brackets))


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop += [loop, {"again": loop}]
    with pytest.raises(InvalidValue, match="contains itself"):
        canonical(loop)


def test_no_recursion_error_even_on_a_nearly_full_stack() -> None:
    def dig() -> None:
        try:
            dig()
        except RecursionError:
            with pytest.raises(InvalidInput):
                canonical(nested(MAX_DEPTH))

    dig()


def test_over_size_is_refused_before_the_rest_is_written() -> None:
    doubled: Any = ["laugh"]
    for _ in range(60):
        doubled = [doubled, doubled]
    for value in (["y" * 1024] * 10**6, doubled, [0] * 10**6, {"z": doubled, "a": 1}):
        with pytest.raises(ValueTooLarge, match="10,000 bytes"):
            canonical(value, limit=10_000)


def test_the_300_mib_string_takes_milliseconds() -> None:
    string = "x" * (300 * 1024 * 1024)
    start = time.thread_time()
    with pytest.raises(ValueTooLarge) as caught:
        canonical({"a": [string]}, what="result")
    assert time.thread_time() - start < 0.05
    assert "result is larger" in str(caught.value)
    assert "$.a[0]" in str(caught.value)


def test_the_limit_counts_utf_8_bytes_not_characters() -> None:
    assert len(canonical("é" * 10, limit=22)) == 22
    with pytest.raises(ValueTooLarge):
        canonical("é" * 10, limit=21)


@pytest.mark.parametrize(
    "text",
    ["NaN", "[Infinity]", "-Infinity", "1e400", '{"a": -1e999}', "", "{", "{'a': 1}", "[1,]", "1 2", "\ufeff1",
     "9" * 4301, "[" * 100_000, b"\xff", '{"a":' * 50_000, b'"\xed\xa0\x80"'],
)  # fmt: skip
def test_text_that_cannot_be_kept_exactly_is_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidValue, match="payload"):
        loads(text, what="payload")


def test_big_integers_and_the_smallest_float_are_read_exactly() -> None:
    assert loads(b"[123456789012345678901234567890, 5e-324]") == [123456789012345678901234567890, 5e-324]


def test_a_small_dict_takes_microseconds() -> None:
    value = {"iteration": 3, "status": "running", "done": [1, 2, 3], "score": 0.5}
    best = math.inf
    for _ in range(20):
        start = time.thread_time()
        for _ in range(500):
            canonical(value)
        best = min(best, (time.thread_time() - start) / 500)
    assert best < 50e-6
