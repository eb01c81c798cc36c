"""The variants of ``--decoding``: from a box to a crop, and from a heatmap to keypoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from posebatch.core.images import GridAlignment
from posebatch.pose.crops import BoxFit
from posebatch.pose.heatmaps import Refinement


@dataclass(frozen=True)
class Decoding:
    """How boxes are cropped and heatmaps are decoded."""

    refinement: Refinement
    box_fit: BoxFit = "whole"
    box_padding: float | None = None
    """Size of the crop relative to the box; None for the value of the network's training."""
    alignment: GridAlignment | None = None
    """Alignment of crop and heatmap; None for the one of the network's training."""


DECODINGS: Final[Mapping[str, Decoding]] = {
    "quarter": Decoding("quarter"),
    "dark": Decoding("dark"),
    "matlab-demo": Decoding("argmax", box_fit="longer_side", box_padding=1 / 0.9, alignment="one_based"),
}
"""By the name of the setting. ``quarter`` is the paper's.

``matlab-demo`` repeats MathWorks' Human-Pose-Estimation-with-Deep-Learning. There the longer side of the box is 0.9 of
the crop's. A joint is the highest pixel, with row and column counted from 1, times 4. This is three crop pixels too far
right and down for networks trained on the paper's grid, in that demo as here."""
