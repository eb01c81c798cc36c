"""What a linker must know of a run and a video."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LinkRules:
    """Settings of linking."""

    max_gap_s: float
    """Longest time for which a person may be lost, counted from the first frame without the person."""
    kpt_thr: float
    """Joints that score above count."""
    size_wh: tuple[int, int]
    """Width and height of the displayed frame, pixels."""
