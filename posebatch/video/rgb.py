"""A decoded frame as it is displayed."""

from __future__ import annotations

from typing import Final

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation
from numpy.typing import NDArray

UNSPECIFIED_MATRIX: Final = 2
"""``AVCOL_SPC_UNSPECIFIED``: the stream does not name its colour matrix."""


def to_rgb(frame: VideoFrame, scale: float = 1.0) -> NDArray[np.uint8]:
    """A decoded frame as it is displayed: (height, width, 3) RGB, rotated."""
    width, height = (max(1, round(length * scale)) for length in (frame.width, frame.height))
    smooth = Interpolation.AREA if scale < 1 else Interpolation.BILINEAR
    rgb = frame.reformat(width, height, "rgb24", src_colorspace=colour_matrix(frame), interpolation=smooth)
    return np.rot90(rgb.to_ndarray(), quarter_turns(frame))


def colour_matrix(frame: VideoFrame) -> int:
    """FFmpeg's number of the colour matrix.

    Where the stream does not name it, HD is BT.709 and smaller frames are BT.601, as players assume.
    """
    if frame.colorspace != UNSPECIFIED_MATRIX:
        return frame.colorspace
    return Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601


def quarter_turns(frame: VideoFrame) -> int:
    """Counter-clockwise, as the display matrix asks; other angles go to the nearest, for probing and decoding alike."""
    return round(frame.rotation / 90)
