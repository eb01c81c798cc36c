"""Metres from pixels, by the height of the person.

The height of a person in pixels is measured along the body, so that it does not depend on the posture: from the eyes
over the middle of the shoulders and the middle of the hips along a leg to the ankle, as mean of the known legs.
In a standing adult this is `CHAIN_SHARE` of the height: the eyes are at 0.936 and the ankle at 0.039 of it (Drillis and
Contini 1966, in Winter, Biomechanics and Motor Control of Human Movement, figure 4.1). The median over the frames in
which the person stands counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.dataset.export.video_motion import BodyHeight

CHAIN_SHARE: Final = 0.936 - 0.039
"""Length of eyes - shoulders - hips - knee - ankle as a share of the height."""


STRAIGHT_LEG: Final = 0.97
"""A leg is straight if hip and ankle are at least this share of its length apart: a knee within 28 degrees."""


UPRIGHT_COSINE: Final = float(np.cos(np.radians(30)))
"""A trunk is upright within 30 degrees of the vertical of the picture."""


@dataclass(frozen=True)
class Scale:
    """Pixels to metres: x to the right, y up, z = 0. The origin is the centre of the lower left pixel of the frame."""

    metres_per_px: float
    height_px: float
    """Height of the person, pixels."""
    standing_frames: int
    """Frames that it is the median of; 0 if the person never stands, and all frames with the whole body count."""
    frame_height: int
    """Height of the displayed frame, pixels."""

    def metres(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (..., 2) in pixels of the displayed frame, as points (..., 3) in metres."""
        up = np.stack([xy[..., 0], self.frame_height - 1 - xy[..., 1]], axis=-1) * self.metres_per_px
        z = np.where(np.isnan(up).any(axis=-1), np.nan, 0.0)
        return np.concatenate([up, z[..., None]], axis=-1)


def scale_of(xy: NDArray[np.float64], body: BodyHeight, frame_height: int) -> Scale | None:
    """The scale of a track from its joints (n, 17, 2); None if no frame shows head, trunk and a leg."""
    heights, standing = body_heights_px(xy)
    known = np.isfinite(heights) & (heights > 0)
    standing &= known
    chosen = heights[standing if standing.any() else known]
    if not len(chosen):
        return None
    height_px = float(np.median(chosen))
    return Scale(body.cm / 100 / height_px, height_px, int(standing.sum()), frame_height)


def body_heights_px(xy: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Height of the person in each frame (n,), pixels, NaN where unknown; and whether the person stands (n,)."""
    eyes, shoulders, hips = (_middle(xy, joint) for joint in ("eye", "shoulder", "hip"))
    legs = np.stack([_leg(xy, side) for side in ("left", "right")])  # (2, n, 2): length, straightness
    trunk = shoulders - hips
    leg_px = _mean_of_known(legs[:, :, 0])
    heights = (_length(eyes - shoulders) + _length(trunk) + leg_px) / CHAIN_SHARE
    with np.errstate(invalid="ignore", divide="ignore"):
        upright = -trunk[:, 1] / _length(trunk) >= UPRIGHT_COSINE
        straight = (legs[:, :, 1] >= STRAIGHT_LEG).any(axis=0)
    return heights, upright & straight


def _joint(xy: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    joint: NDArray[np.float64] = xy[:, KEYPOINT_NAMES.index(name)]
    return joint


def _middle(xy: NDArray[np.float64], joint: str) -> NDArray[np.float64]:
    """The middle of a pair; the one that is known where the other is not, as seen from the side."""
    return _mean_of_known(np.stack([_joint(xy, f"{side}_{joint}") for side in ("left", "right")]))


def _leg(xy: NDArray[np.float64], side: str) -> NDArray[np.float64]:
    """Length of a leg (n,) and how straight it is (n,), as columns."""
    hip, knee, ankle = (_joint(xy, f"{side}_{joint}") for joint in ("hip", "knee", "ankle"))
    length = _length(hip - knee) + _length(knee - ankle)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([length, _length(hip - ankle) / length], axis=1)


def _length(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    length: NDArray[np.float64] = np.hypot(vectors[..., 0], vectors[..., 1])
    return length


def _mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the first axis of the values that are not NaN; NaN where all are."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis=0) / known.sum(axis=0)
