"""The groups of flags in ``posebatch run --help`` and ``posebatch plan --help``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from posebatch.core.options import Option


@dataclass(frozen=True)
class Group:
    """A group of flags, with an example."""

    title: str
    example: str
    """Inputs and flags of a command."""


WHAT: Final = Group("what", "videos/ --output out --exclude '*/drafts/*' --stride 5")
WHERE: Final = Group("where", "s3://archive/2026 --output s3://poses/out --endpoint-url http://minio:9000")
QUALITY: Final = Group("quality", "videos/ --output out --preset balanced --flip-test")
MOTION: Final = Group("motion", "videos/ --output out --max-gap-seconds 0.5 --cutoff-hz 8")
PREVIEWS: Final = Group("previews", "clip.mp4 --output out --preview gif --preview-scale 0.5")
SPEED: Final = Group("speed", "videos/ --output out --device cuda --workers 4")
LIMITS: Final = Group("limits", "videos/ --output out --max-memory-gb 8 --max-attempts 2")
NIGHTS: Final = Group("nights", "s3://archive/2026 --output s3://poses/out --deadline 06:00 --fail-above 1%")

GROUPS: Final = (WHAT, WHERE, QUALITY, MOTION, PREVIEWS, SPEED, LIMITS, NIGHTS)
"""In the order of the help."""

_GROUP_OF_SETTINGS: Final[Mapping[str, Group]] = {
    "estimator": QUALITY,
    "sampling": WHAT,
    "motion": MOTION,
    "preview": PREVIEWS,
    "execution": SPEED,
    "limits": LIMITS,
    "selection": WHAT,
    "night": NIGHTS,
}

_GROUP_OF_OPTION: Final[Mapping[str, Group]] = {
    **dict.fromkeys(("endpoint_url", "request_payer", "wait", "log_format"), WHERE),
    "max_attempts": LIMITS,
    **dict.fromkeys(("fail_on", "fail_above"), NIGHTS),
}
"""Options that belong elsewhere than the rest of their settings."""


def group_of(item: Option) -> Group:
    """The group of an option."""
    return _GROUP_OF_OPTION.get(item.name) or _GROUP_OF_SETTINGS[item.group]
