"""The settings of a run that comes every night: when it stops by itself, and who is told of its end."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from posebatch.core.deadline import Deadline
from posebatch.core.errors import SettingsError
from posebatch.core.options import option
from posebatch.core.redaction import MASK

FROM_ENVIRONMENT: Final = "env:"
"""Begin of a ``notify`` that names an environment variable."""


@dataclass(frozen=True)
class NightSettings:
    """When a run begins no further video, and where it posts how it ended. No field changes a published row."""

    deadline: str | None = option(
        None,
        "begin no further video after this time, the next 06:00 after the start, or a moment in ISO 8601; local time "
        "if it has no zone; exit code 4 if videos are left",
        metavar="TIME",
    )
    max_gpu_hours: float | None = option(
        None,
        "begin no further video once the GPUs of ready workers were held for so many hours; on a CPU an hour of each "
        "ready worker counts; exit code 4 if videos are left",
        low=0,
        metavar="H",
    )
    grace_minutes: float = option(
        30.0,
        "maximum time for the videos in flight after --deadline or --max-gpu-hours, minutes; what they have staged "
        "stays for the next run",
        low=0,
        metavar="M",
    )
    notify: str | None = option(
        None,
        "post a JSON object to this address when the run has ended, also when it was aborted; env:NAME takes the "
        "address from an environment variable, because it may hold a secret",
        metavar="URL|env:NAME",
    )

    def __post_init__(self) -> None:
        if self.deadline is not None:
            Deadline.parse(self.deadline)
        if self.notify is not None and not self.notify.startswith(FROM_ENVIRONMENT):
            _check_address(self.notify)

    def deadline_after(self, start: datetime) -> datetime | None:
        """The deadline of a run that began at ``start``, which has a zone; None without one."""
        return None if self.deadline is None else Deadline.parse(self.deadline).after(start)

    def notify_address(self) -> str | None:
        """The address to post to; None if nobody is told. Raises `SettingsError` if the variable holds none."""
        if self.notify is None or not self.notify.startswith(FROM_ENVIRONMENT):
            return self.notify
        name = self.notify.removeprefix(FROM_ENVIRONMENT)
        address = os.environ.get(name, "")
        if not address:
            raise SettingsError(f"notify: the environment variable {name!r} holds no address")
        _check_address(address)
        return address


def masked_address(notify: str) -> str:
    """The host of an address, without all that may be secret; ``env:NAME`` is none.

    >>> masked_address("https://me:password@hooks.example.com/services/T0/B0/secret?token=1")
    'https://hooks.example.com/***'
    """
    if notify.startswith(FROM_ENVIRONMENT):
        return notify
    parts = urlsplit(notify)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/{MASK}"


def _check_address(address: str) -> None:
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:  # the address itself may be secret
        raise SettingsError("notify must be an address such as https://hooks.example.com/run, or env:NAME")
