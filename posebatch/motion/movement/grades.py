"""The rules by which a track gets its grade."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from typing import Final


@dataclass(frozen=True)
class Measures:
    """Figures of a track that its grade depends on."""

    seconds: float
    height_px: float
    gap_share: float
    joints_seen: float
    """Mean share of its frames in which the 12 joints from the shoulders down are seen."""
    jitter_torso: float
    bone_length_cv: float
    suspect_share: float
    """Suspected swaps and jumps per frame."""


@dataclass(frozen=True)
class Rule:
    """The limits of one figure for the grades A, B and C. Beyond the last it is D."""

    measure: str
    text: str
    """What the figure is, with its unit in braces' format."""
    limits: tuple[float, float, float]
    at_least: bool
    """Whether limits are the least values allowed, or the largest."""

    def grade(self, value: float) -> str:
        """A to D. A figure that is not known, NaN, is not judged."""
        if isnan(value):
            return "A"
        sign = 1 if self.at_least else -1
        return next(
            (letter for letter, limit in zip("ABC", self.limits, strict=True) if sign * value >= sign * limit), "D"
        )


RULES: Final = (
    Rule("seconds", "{:.1f} s long", (2.0, 1.0, 0.5), at_least=True),
    Rule("height_px", "{:.0f} px high", (120.0, 80.0, 40.0), at_least=True),
    Rule("gap_share", "not found in {:.0%} of its frames", (0.05, 0.15, 0.35), at_least=False),
    Rule("joints_seen", "joints of body and limbs seen in {:.0%}", (0.9, 0.75, 0.5), at_least=True),
    Rule("jitter_torso", "jitter of {:.3f} torso lengths", (0.02, 0.04, 0.08), at_least=False),
    Rule("bone_length_cv", "bone lengths vary by {:.0%}", (0.25, 0.4, 0.6), at_least=False),
    Rule("suspect_share", "swaps or jumps suspected in {:.1%}", (0.01, 0.05, 0.15), at_least=False),
)
"""A track has the worst grade that any rule gives."""


def grade(measures: Measures) -> tuple[str, str]:
    """The grade, and which rules are to blame for it; "" for A."""
    values = {rule: getattr(measures, rule.measure) for rule in RULES}
    grades = {rule: rule.grade(value) for rule, value in values.items()}
    worst = max(grades.values())
    if worst == "A":
        return "A", ""
    return worst, "; ".join(rule.text.format(values[rule]) for rule in RULES if grades[rule] == worst)
