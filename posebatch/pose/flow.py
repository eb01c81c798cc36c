"""Carry points from one frame to the next by dense optical flow.

DIS flow (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016) of OpenCV, on small grey pictures.
OpenCV is the optional extra ``flow``.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from posebatch.models.networks.pixels import Pixels

LONG_SIDE: Final = 512
"""Longer side of the grey pictures, pixels; smaller frames keep their size."""


LUMA: Final = (0.299, 0.587, 0.114)
"""Weights of red, green and blue."""


MIN_SIDE: Final = 16
"""DIS needs pictures of at least this width and height, pixels. In thinner ones points stay where they are."""


def grey_pictures(pixels: Pixels) -> NDArray[np.uint8]:
    """Small grey pictures of frames: (n, height, width)."""
    width, height = pixels.size_wh
    scale = min(1.0, LONG_SIDE / max(width, height))
    small_wh = max(1, round(width * scale)), max(1, round(height * scale))
    if len(pixels) == 0:
        return np.zeros((0, *small_wh[::-1]), np.uint8)
    rgb = pixels.resized(small_wh)
    grey = sum(rgb[:, channel] * weight for channel, weight in enumerate(LUMA))
    assert isinstance(grey, torch.Tensor)
    return grey.round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def carry_points(
    points: NDArray[np.floating[Any]],
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    frame_size_wh: tuple[int, int],
) -> NDArray[np.float64]:
    """Where optical flow carries points (..., 2), x and y in pixels of the frame.

    ``before`` and ``after`` are `grey_pictures` of two frames of one size. A point outside the frame moves like the
    nearest one inside.
    """
    import cv2  # noqa: PLC0415 - optional

    height, width = before.shape
    if min(width, height) < MIN_SIDE:
        return points.astype(np.float64)
    cv2.setNumThreads(1)  # DIS splits pictures among threads, and its result depends on their number
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    flow = np.asarray(dis.calc(before, after, np.zeros((height, width, 2), np.float32)))
    step = np.array(frame_size_wh) / (width, height)
    on_grid = np.rint((points + 0.5) / step - 0.5)
    column = on_grid[..., 0].clip(0, width - 1).astype(np.intp)
    row = on_grid[..., 1].clip(0, height - 1).astype(np.intp)
    moved: NDArray[np.float64] = points + flow[row, column].astype(np.float64) * step
    return moved
