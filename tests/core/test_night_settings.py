"""The options of a night, as the command line and a file give them."""

from __future__ import annotations

import pytest

from posebatch.cli.entry import build_parser
from posebatch.core.errors import SettingsError, UsageError
from posebatch.core.night_settings import masked_address
from posebatch.core.settings import settings_from


@pytest.mark.parametrize(
    ("given", "share"),
    [
        (None, None),
        ("0", 0.0),
        ("0%", 0.0),
        ("1%", 0.01),
        (0.01, 0.01),
        (" 2.5 %", 0.025),
        ("100%", 1.0),
        ("1e-3", 0.001),
    ],
)
def test_share_is_a_percentage_or_a_fraction(given: object, share: float | None):
    assert settings_from({"fail_above": given}).selection.max_failed_share == share


@pytest.mark.parametrize("given", ["", "%", "1", "1.0", "5", "-1%", "101%", "nan", "nan%", "inf", "one", "1%%"])
def test_share_that_may_mean_two_things_is_refused(given: str):
    with pytest.raises(SettingsError, match="fail_above must be a share"):
        settings_from({"fail_above": given})


def test_the_old_name_of_the_share_leads_to_the_new_one():
    with pytest.raises(SettingsError, match="'max_failed_share'; did you mean 'fail_above', its new name"):
        settings_from({"max_failed_share": 0.01}, "--config a.yaml")
    with pytest.raises(UsageError, match="'--fail-above', its new name"):
        build_parser().parse_args(["run", "in", "--output", "out", "--max-failed-share", "0.01"])


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://h", "http://h/***"),
        ("https://hooks.example.com:8443/services/T0/secret", "https://hooks.example.com:8443/***"),
        ("https://me:secret@h/secret?secret=1#secret", "https://h/***"),
        ("env:POSEBATCH_NOTIFY", "env:POSEBATCH_NOTIFY"),
    ],
)
def test_address_is_shown_without_its_secrets(address: str, shown: str):
    settings_from({"notify": address})
    assert masked_address(address) == shown


@pytest.mark.parametrize("address", ["", "secret", "ftp://h/secret", "https://", "https:///secret", "http://h:secret/"])
def test_address_that_cannot_be_posted_to_is_refused_without_showing_it(address: str):
    with pytest.raises(SettingsError, match="notify must be an address") as refused:
        settings_from({"notify": address})
    assert "secret" not in str(refused.value)


def test_address_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    night = settings_from({"notify": "env:POSEBATCH_NOTIFY"}).night
    with pytest.raises(SettingsError, match="environment variable 'POSEBATCH_NOTIFY' holds no address"):
        night.notify_address()
    monkeypatch.setenv("POSEBATCH_NOTIFY", "https://h/secret")
    assert night.notify_address() == "https://h/secret"
    monkeypatch.setenv("POSEBATCH_NOTIFY", "secret")
    with pytest.raises(SettingsError, match="notify must be an address"):
        night.notify_address()
