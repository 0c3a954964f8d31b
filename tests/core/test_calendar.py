"""Cron times: by the clock on the wall, across its changes, and refused when they cannot be."""

from datetime import UTC, datetime, timedelta

import pytest

from agentos.core.calendar import Schedule, schedule
from agentos.store.errors import ConfigInvalid


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def coming(when: Schedule, start: str, count: int) -> list[str]:
    """The next times in UTC, one from the other, as the coordinator goes on."""
    found, at = [], utc(start)
    for _ in range(count):
        at = when.after(at)
        found.append(at.strftime("%m-%d %H:%M"))
    return found


def test_it_follows_the_clock_of_the_zone_over_both_changes_of_a_year() -> None:
    nine = schedule("0 9 * * mon-fri", "Europe/Berlin")
    assert coming(nine, "2026-03-27T12:00", 2) == ["03-30 07:00", "03-31 07:00"], "Friday, then Monday in summer time"
    assert coming(nine, "2026-10-23T12:00", 1) == ["10-26 08:00"]


def test_a_time_that_the_clock_skips_comes_at_the_jump_and_once() -> None:
    assert coming(schedule("30 2 * * *", "Europe/Berlin"), "2026-03-28T12:00", 2) == ["03-29 01:00", "03-30 00:30"]
    often = schedule("*/30 * * * *", "Europe/Berlin")
    assert coming(often, "2026-03-29T00:00", 4) == ["03-29 00:30", "03-29 01:00", "03-29 01:30", "03-29 02:00"]


def test_a_time_that_comes_twice_fires_the_first_time_unless_its_hour_is_open() -> None:
    assert coming(schedule("30 2 * * *", "Europe/Berlin"), "2026-10-24T12:00", 2) == ["10-25 00:30", "10-26 01:30"]
    often = schedule("0,30 * * * *", "Europe/Berlin")
    assert coming(often, "2026-10-24T23:40", 5) == [
        "10-25 00:00", "10-25 00:30", "10-25 01:00", "10-25 01:30", "10-25 02:00",
    ]  # fmt: skip
    assert coming(often, "2026-10-25T00:30", 2) == ["10-25 01:00", "10-25 01:30"]


@pytest.mark.parametrize(
    ("expression", "zone"),
    [("*/7 * * * *", "Australia/Lord_Howe"), ("30 2 * * *", "America/New_York"), ("0 */3 * * *", "Pacific/Apia"),
     ("15 1,2,3 * * *", "Europe/Berlin"), ("0 0 29 2 *", "UTC")],
)  # fmt: skip
def test_what_came_between_is_what_comes_one_after_the_other(expression: str, zone: str) -> None:
    when = schedule(expression, zone)
    for start in ("2026-03-07T00:00", "2026-03-28T18:00", "2026-04-04T06:00", "2026-10-03T06:00", "2026-10-31T20:00"):
        first = when.after(utc(start))
        end = first + timedelta(days=2)
        one_by_one, at = [], first
        while at <= end:
            one_by_one.append(at)
            at = when.after(at)
        assert when.between(first, end) == one_by_one


def test_of_a_long_gap_the_last_day_is_told() -> None:
    minutely = schedule("* * * * *", "UTC")
    found = minutely.between(utc("2025-01-01T00:00"), utc("2026-01-01T00:00"))
    assert len(found) == 1441
    assert found[-1] == utc("2026-01-01T00:00")


def test_short_names_stand_for_expressions() -> None:
    assert coming(schedule("@weekly", "UTC"), "2026-11-28T12:00", 1) == ["11-29 00:00"]
    assert schedule("@hourly", "UTC").expression == "0 * * * *"


@pytest.mark.parametrize(
    ("expression", "zone", "complaint"),
    [
        ("every day", "UTC", "five fields"),
        ("* * * * * *", "UTC", "five fields"),
        ("61 * * * *", "UTC", "cannot be read"),
        ("0 9 * * mo-fr", "UTC", "cannot be read"),
        ("0 0 30 2 *", "UTC", "never comes"),
        ("0 9 * * *", "Europe/Berlun", "no time zone 'Europe/Berlun'"),
        ("0 9 * * *", "", "no time zone"),
        ("0 9 * * *", "../etc/passwd", "no time zone"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(expression: str, zone: str, complaint: str) -> None:
    with pytest.raises(ConfigInvalid, match=complaint) as refused:
        schedule(expression, zone)
    assert refused.value.hint
