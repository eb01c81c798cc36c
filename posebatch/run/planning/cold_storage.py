"""Videos in cold storage classes: what restoring them takes, and the counts of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from posebatch.core.videos import SourceVideo
from posebatch.core.wording import counted
from posebatch.storage.cold_classes import RESTORING

PRICES: Final = "list prices of us-east-1 in May 2026"
"""What the amounts below are."""


COPY_DAYS: Final = 7
"""Days for which the copy of a restored object is assumed to be kept."""


_COPY_DOLLARS: Final = 0.023 * COPY_DAYS / 30
"""Of the copy, in S3 Standard, for each GB."""


EXAMPLES: Final = 20
"""Addresses that are kept of each class."""


@dataclass(frozen=True)
class RestoreTier:
    """A way to restore objects."""

    tier: str
    hours: str
    """How long it takes, by the documentation of S3."""
    dollars_per_gb: float
    dollars_per_1000: float
    """For the requests, one for each object."""
    keeps_copy: bool = True
    """Whether a copy in S3 Standard is paid for, beside the object."""

    def dollars(self, objects: int, size_bytes: int) -> float:
        """What restoring the objects costs, with a copy for `COPY_DAYS`."""
        gigabytes = size_bytes / (1 << 30)
        copy = _COPY_DOLLARS if self.keeps_copy else 0.0
        return gigabytes * (self.dollars_per_gb + copy) + objects / 1000 * self.dollars_per_1000


TIERS: Final[Mapping[str, tuple[RestoreTier, ...]]] = {
    "GLACIER": (RestoreTier("Standard", "3-5", 0.01, 0.05), RestoreTier("Bulk", "5-12", 0.0, 0.0)),
    "DEEP_ARCHIVE": (RestoreTier("Standard", "12", 0.02, 0.1), RestoreTier("Bulk", "48", 0.0025, 0.025)),
    "ARCHIVE_ACCESS": (RestoreTier("Standard", "3-5", 0.0, 0.0, keeps_copy=False),),
    "DEEP_ARCHIVE_ACCESS": (RestoreTier("Standard", "12", 0.0, 0.0, keeps_copy=False),),
}
"""By the class, or by the tier of INTELLIGENT_TIERING. Expedited retrieval, for single small files, is left out."""


@dataclass
class _ColdClass:
    videos: int = 0
    size_bytes: int = 0
    examples: list[str] = field(default_factory=list)


class ColdVideos:
    """Videos to be processed that cannot be read before they are restored, counted by class."""

    def __init__(self) -> None:
        self._classes: dict[str, _ColdClass] = {}

    def add(self, video: SourceVideo) -> None:
        """Count a video."""
        entry = self._classes.setdefault(video.cold_class, _ColdClass())
        entry.videos += 1
        entry.size_bytes += video.size_bytes
        if len(entry.examples) < EXAMPLES:
            entry.examples.append(video.uri)

    def update(self, others: ColdVideos) -> None:
        """Count the videos of ``others``, too."""
        for name, other in others._classes.items():
            entry = self._classes.setdefault(name, _ColdClass())
            entry.videos += other.videos
            entry.size_bytes += other.size_bytes
            entry.examples += other.examples[: EXAMPLES - len(entry.examples)]

    @property
    def videos(self) -> int:
        """Their number."""
        return sum(entry.videos for entry in self._classes.values())

    def rows(self) -> list[dict[str, Any]]:
        """The counts for ``summary.json``, with the ways to restore the videos."""
        return [
            {
                "storage_class": name,
                **asdict(entry),
                "restore": [
                    {
                        "tier": tier.tier,
                        "hours": tier.hours,
                        "dollars": round(tier.dollars(entry.videos, entry.size_bytes), 2),
                    }
                    for tier in TIERS.get(name, ())
                ],
                "prices": PRICES,
            }
            for name, entry in sorted(self._classes.items())
        ]

    def lines(self) -> Iterator[str]:
        """The same as text for people."""
        if not self._classes:
            return
        yield (
            f"cold: {counted(self.videos, 'video')} to be restored from cold storage; a later run takes what is "
            f"restored ({PRICES}, with a copy for {COPY_DAYS} days; see docs/stores.md)"
        )
        for row in self.rows():
            ways = [f"{way['tier']} {way['hours']} h, ${way['dollars']:,.2f}" for way in row["restore"]]
            size = f"{row['size_bytes'] / 1e9:.1f} GB"
            how = "" if row["storage_class"].endswith(RESTORING) else f"; to restore: {' or '.join(ways)}"
            yield f"  {row['videos']:>7}  {row['storage_class']}, {size}{how}; such as {row['examples'][0]}"
