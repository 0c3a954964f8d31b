"""When a cron expression comes next, in a time zone whose clocks change.

The expression is matched against the clock on the wall. Where that jumps forward, times that it skips come at the
moment of the jump, once. Where it goes back and an hour comes twice, a time of that hour comes the first time only,
unless the hour field is open (`*`, `*/2`): then both times, as such an entry means every so often.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import CroniterBadDateError, CroniterError, croniter

from agentos.store.errors import ConfigInvalid

_LONGEST_SHIFT = timedelta(hours=3)
_MANY = 10_000
_EXAMPLE = 'five fields, as in "0 9 * * mon-fri": minute, hour, day of the month, month, day of the week'


@dataclass(frozen=True, slots=True)
class Schedule:
    """An expression and its zone, checked. Make it with `schedule`."""

    expression: str
    zone: ZoneInfo

    def after(self, instant: datetime) -> datetime:
        """The first time after `instant` (aware), in UTC. Raises ConfigInvalid: if there is none within fifty years."""
        local = instant.astimezone(self.zone).replace(tzinfo=None)
        wall = croniter(self.expression, local - _LONGEST_SHIFT, max_years_between_matches=50)
        found: list[datetime] = []
        end: datetime | None = None
        while True:
            try:
                time: datetime = wall.get_next(datetime)
            except CroniterBadDateError:
                break
            if end is not None and time > end:
                break
            found += [each for each in self._instants(time) if each > instant]
            if found and end is None:  # the wall's order is not that of the instants around a change
                end = time + _LONGEST_SHIFT
        if not found:
            raise ConfigInvalid(f"the cron expression {self.expression!r} never comes", hint=_EXAMPLE)
        return min(found)

    def between(self, first: datetime, now: datetime) -> list[datetime]:
        """Every time from `first` to `now`, both included, ascending; of many thousands those of the last day."""
        found = self._between(first, now)
        return found if found is not None else self._between(max(first, now - timedelta(days=1)), now) or []

    def _between(self, first: datetime, now: datetime) -> list[datetime] | None:
        begin, end = (each.astimezone(self.zone).replace(tzinfo=None) for each in (first, now))
        wall = croniter(self.expression, begin - _LONGEST_SHIFT, max_years_between_matches=50)
        found: set[datetime] = set()
        for _ in range(_MANY):
            time: datetime = wall.get_next(datetime)
            if time > end + _LONGEST_SHIFT:
                return sorted(found)
            found.update(each for each in self._instants(time) if first <= each <= now)
        return None

    def _instants(self, wall: datetime) -> list[datetime]:
        first, second = (wall.replace(tzinfo=self.zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        if first == second:
            return [first]
        if second < first:  # skipped: with the offset before the jump it is later than with the one after it
            return [self._jump(second, first)]
        return [first, second] if self.expression.split()[1].startswith("*") else [first]

    def _jump(self, before: datetime, after: datetime) -> datetime:
        """The moment between these two at which the zone's offset changes, to the second."""
        offset = before.astimezone(self.zone).utcoffset()
        while after - before > timedelta(seconds=1):
            middle = before + (after - before) / 2
            if middle.astimezone(self.zone).utcoffset() == offset:
                before = middle
            else:
                after = middle
        return after.replace(microsecond=0)


_ALIASES = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}  # fmt: skip


def schedule(expression: str, timezone: str) -> Schedule:
    """Check both. Raises ConfigInvalid: if the expression is none, never comes, or nobody knows the time zone."""
    text = str(expression).strip()
    text = _ALIASES.get(text.lower(), text)
    if len(text.split()) != 5:
        raise ConfigInvalid(f"the cron expression {expression!r} does not have five fields", hint=_EXAMPLE)
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError) as exc:
        raise ConfigInvalid(
            f"there is no time zone {timezone!r}", hint='use a name such as "Europe/Berlin" or "UTC"'
        ) from exc
    try:
        croniter.expand(text)
    except (CroniterError, ValueError, KeyError, AttributeError) as exc:
        raise ConfigInvalid(f"the cron expression {expression!r} cannot be read: {exc}", hint=_EXAMPLE) from exc
    made = Schedule(text, zone)
    made.after(datetime.now(UTC))
    return made
