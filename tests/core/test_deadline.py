"""A deadline as the user writes it, and the moment that it means."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from posebatch.core.deadline import Deadline
from posebatch.core.errors import SettingsError
from posebatch.core.settings import settings_from

EVENING = datetime(2026, 11, 29, 22, 30, tzinfo=UTC)


@pytest.fixture(params=["UTC", "America/New_York"])
def local_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "start", "moment"),
    [
        ("06:00Z", EVENING, "2026-11-30T06:00+00:00"),
        ("22:30Z", EVENING, "2026-11-30T22:30+00:00"),  # the next one, not this moment
        ("22:31Z", EVENING, "2026-11-29T22:31+00:00"),
        ("23:31+01:00", EVENING, "2026-11-29T23:31+01:00"),
        ("06:00:30Z", EVENING, "2026-11-30T06:00:30+00:00"),
        ("06:00 Europe/Berlin", EVENING, "2026-11-30T06:00+01:00"),
        ("00:15 Europe/Berlin", EVENING, "2026-11-30T00:15+01:00"),  # it is 23:30 there
        ("06:00 Asia/Tokyo", EVENING, "2026-12-01T06:00+09:00"),  # it is 07:30 of the 30th there
        ("2026-11-30T06:00Z", EVENING, "2026-11-30T06:00+00:00"),
        ("2026-11-30T06:00 Europe/Berlin", EVENING, "2026-11-30T06:00+01:00"),
        ("2026-11-20T06:00Z", EVENING, "2026-11-20T06:00+00:00"),  # past, and stays so for a second attempt
        # the night of the change to winter time, and to summer time
        ("06:00 Europe/Berlin", datetime(2026, 10, 24, 20, tzinfo=UTC), "2026-10-25T06:00+01:00"),
        ("06:00 Europe/Berlin", datetime(2026, 3, 28, 20, tzinfo=UTC), "2026-03-29T06:00+02:00"),
        ("02:30 Europe/Berlin", datetime(2026, 3, 28, 20, tzinfo=UTC), "2026-03-29T02:30+01:00"),  # not on that clock
    ],
)
def test_deadline_is_the_next_such_time(local_zone: str, text: str, start: datetime, moment: str):
    assert Deadline.parse(text).after(start) == datetime.fromisoformat(moment), local_zone


@pytest.mark.parametrize(("zone", "hour"), [("UTC", 6), ("America/New_York", 11)])
@pytest.mark.parametrize("text", ["06:00", "2026-11-30T06:00"])
def test_deadline_without_a_zone_is_local(monkeypatch: pytest.MonkeyPatch, zone: str, hour: int, text: str):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert Deadline.parse(text).after(EVENING) == datetime(2026, 11, 30, hour, tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "text",
    ["", " ", "6", "06", "six", "25:00", "2026-11-30", "2026-13-01T06:00", "06:00Z Europe/Berlin", "6:00"],
)
def test_deadline_that_nobody_understands_is_refused(text: str):
    with pytest.raises(SettingsError, match="deadline must be a time such as 06:00"):
        Deadline.parse(text)


def test_deadline_that_yaml_read_as_a_number_says_to_quote():
    with pytest.raises(SettingsError, match="got '1320'; in a YAML file write it in quotes"):
        settings_from({"deadline": 1320})


@pytest.mark.parametrize("name", ["Europe/Nowhere", "../etc/passwd", "CEST!"])
def test_deadline_in_an_unknown_zone_is_refused(name: str):
    with pytest.raises(SettingsError, match="knows no time zone"):
        Deadline.parse(f"06:00 {name}")
