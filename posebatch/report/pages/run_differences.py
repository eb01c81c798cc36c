"""The difference between two runs of an output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from posebatch.report.pages.run_facts import RunFacts, VideoLine
from posebatch.report.pages.words import duration_words

CHANGES_LISTED: Final = 20
"""Videos whose change the page of a run lists."""


GRADES: Final = ("A", "B", "C", "D")


@dataclass(frozen=True)
class Differences:
    """What changed from one run to the next."""

    before: str
    """The run before."""
    figures: list[tuple[str, str, str]]
    """A name, the value before, the value now."""
    settings: list[tuple[str, str, str]]
    videos: list[tuple[VideoLine, str]]
    """Videos in both runs that changed, with the change; at most `CHANGES_LISTED`."""
    videos_changed: int
    videos_in_both: int


def differences(before: RunFacts, now: RunFacts) -> Differences:
    """What changed from the run ``before`` to the run ``now``."""
    earlier = {line.video: line for line in before.lines}
    both = [(earlier[line.video], line) for line in now.lines if line.video in earlier]
    changed = [(line, change) for old, line in both if (change := change_of(old, line))]
    return Differences(
        before.run_id,
        list(zip(_NAMES, _figures(before), _figures(now), strict=True)),
        _changed_settings(before.settings, now.settings),
        changed[:CHANGES_LISTED],
        len(changed),
        len(both),
    )


def change_of(old: VideoLine, new: VideoLine) -> str:
    """What changed about a video, in words; empty if nothing did."""
    parts = []
    if old.status != new.status:
        parts.append(f"{old.status} → {new.status}")
    if old.grade != new.grade:
        parts.append(f"grade {old.grade or 'none'} → {new.grade or 'none'}")
    if old.persons != new.persons:
        parts.append(f"{old.persons} → {new.persons} persons in all frames")
    if old.tracks != new.tracks:
        counts = ["no" if line.tracks is None else str(line.tracks) for line in (old, new)]
        parts.append(f"{' → '.join(counts)} tracks")
    return ", ".join(parts)


def grade_counts(lines: Iterable[VideoLine]) -> dict[str, int]:
    """How many published videos have each grade; those without one are under ``none``."""
    counts = Counter(line.grade or "none" for line in lines if line.status != "failed")
    return {grade: counts[grade] for grade in (*GRADES, "none")}


_NAMES: Final = (
    *("videos in the inputs", "published", "derived", "up to date", "failed", "partial", "frames", "persons"),
    *("frames/s", "time in all", "videos graded A or B"),
)


def _figures(run: RunFacts) -> list[str]:
    summary = run.summary
    names = ("videos_total", "published", "derived", "up_to_date", "failed", "partial", "frames", "persons")
    figures = [_number(summary.get(name)) for name in names]
    rate, elapsed = summary.get("frames_per_second"), summary.get("elapsed_s")
    figures.append("-" if rate is None else f"{rate:.1f}")
    figures.append("-" if elapsed is None else duration_words(elapsed))
    counts = grade_counts(run.lines)
    graded = sum(counts[grade] for grade in GRADES)
    figures.append(f"{counts['A'] + counts['B']} of {graded}" if graded else "-")
    return figures


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _changed_settings(before: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, str, str]]:
    names = [*now, *(name for name in before if name not in now)]
    return [
        (name, _setting(before, name), _setting(now, name))
        for name in names
        if _setting(before, name) != _setting(now, name)
    ]


def _setting(settings: dict[str, Any], name: str) -> str:
    value = settings.get(name)
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
