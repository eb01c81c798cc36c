"""The ways from a box to a crop and from a heatmap to keypoints that ``--decoding`` names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from posebatch.core.images import GridAlignment
from posebatch.pose.crops import BoxFit
from posebatch.pose.heatmaps import Refinement


@dataclass(frozen=True)
class Decoding:
    """How boxes are cropped and heatmaps read."""

    refinement: Refinement
    box_fit: BoxFit = "whole"
    box_padding: float | None = None
    """How much larger than the box the crop is; None: what the network was trained with."""
    alignment: GridAlignment | None = None
    """How crop and heatmap lie on each other; None: as the network was taught."""


DECODINGS: Final[Mapping[str, Decoding]] = {
    "quarter": Decoding("quarter"),
    "dark": Decoding("dark"),
    "matlab-demo": Decoding("argmax", box_fit="longer_side", box_padding=1 / 0.9, alignment="one_based"),
}
"""By the name of the setting. ``quarter`` is the paper's. ``matlab-demo`` does what MathWorks'
Human-Pose-Estimation-with-Deep-Learning does: the box's longer side is 0.9 of the crop's, and the highest pixel, its
row and column counted from 1, times 4 is the joint. Networks taught the paper's grid lie three crop pixels further up
and left than it says; that demo shows them so too."""
