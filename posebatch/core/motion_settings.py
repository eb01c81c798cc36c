"""The settings of tracks and movement. All of it is derived from stored poses."""

from __future__ import annotations

from dataclasses import dataclass

from posebatch.core.options import option


@dataclass(frozen=True)
class MotionSettings:
    """How persons are followed over a video, and how their movement is smoothed. No field changes a keypoint."""

    track: bool = option(True, "follow each person over the video: track_id, and the tables tracks and motion")
    linker: str = option(
        "global",
        "how persons are followed; global: over the whole video at once, greedy-oks: frame by frame by OKS, as in the "
        "paper",
        choices=("global", "greedy-oks"),
    )
    max_gap_seconds: float = option(
        1.5, "longest gap that a track may have, and over which joints are interpolated, seconds", low=0, metavar="S"
    )
    cutoff_hz: float = option(
        6.0, "cut-off frequency of the low-pass filter that smooths joints, Hz", low=0.1, metavar="HZ"
    )
    repair_swaps: bool = option(False, "exchange left and right in motion where they are found swapped")
