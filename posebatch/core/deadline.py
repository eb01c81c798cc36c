"""A time of day, or a moment, until which a run begins further videos."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from posebatch.core.errors import SettingsError

FORMS = "06:00, 06:00Z, 06:00+01:00, '06:00 Europe/Berlin', or ISO 8601 as in 2026-11-30T06:00+01:00"


@dataclass(frozen=True)
class Deadline:
    """A time of day that comes every day, or one moment. Without a zone it is local time."""

    when: time | datetime
    """Without a zone; see ``zone``."""
    zone: tzinfo | None = None
    """None: the zone of this machine."""

    @classmethod
    def parse(cls, text: str) -> Deadline:
        """Read a deadline. Raises `SettingsError`, which names the forms that are understood.

        >>> Deadline.parse("06:00+01:00").after(datetime(2026, 11, 30, 5, 30, tzinfo=UTC)).isoformat()
        '2026-12-01T06:00:00+01:00'
        """
        clock, _, name = text.strip().partition(" ")
        zone = _named_zone(name.strip()) if name.strip() else None
        for read in (time.fromisoformat, datetime.fromisoformat):
            try:
                when = read(clock)
            except ValueError:
                continue
            is_date_alone = isinstance(when, datetime) and "T" not in clock
            if ":" not in clock or is_date_alone or (zone is not None and when.tzinfo is not None):
                break
            return cls(when.replace(tzinfo=None), zone or when.tzinfo)
        hint = "; in a YAML file write it in quotes" if text.isdecimal() else ""  # YAML reads 22:00 as 1320
        raise SettingsError(f"deadline must be a time such as {FORMS}, got {text!r}{hint}")

    def after(self, start: datetime) -> datetime:
        """The moment, or the first such time of day after ``start``, which has a zone; the answer has one, too.

        A moment is the same for every start, also if it is past.
        """
        if isinstance(self.when, datetime):
            return self._zoned(self.when)
        local = start.astimezone(self.zone)
        for days in range(3):  # the hour that a change to summer time leaves out may push a time past the next start
            moment = self._zoned(datetime.combine(local.date() + timedelta(days), self.when))
            if moment.astimezone(UTC) > start.astimezone(UTC):
                return moment
        raise AssertionError(f"{self} does not come within two days of {start}")

    def _zoned(self, moment: datetime) -> datetime:
        if self.zone is None:
            return moment.astimezone()
        # through UTC, so that an hour that the change to summer time leaves out becomes a real one
        return moment.replace(tzinfo=self.zone).astimezone(UTC).astimezone(self.zone)


def _named_zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise SettingsError(
            f"deadline: this machine knows no time zone {name!r}; give an offset such as 06:00+01:00, "
            "or install the zones (tzdata)"
        ) from error
