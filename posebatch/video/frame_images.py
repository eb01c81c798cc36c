"""FFmpeg frames as arrays: RGB or planes, rotated as displayed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation
from numpy.typing import NDArray

from posebatch.core.images import DeviceImages, Images, PixelCoding, YuvImages, coding_of

NewArray = Callable[[tuple[int, ...], type[np.generic]], NDArray[Any]]
"""Makes an array of a shape and type, its content whatever."""


_FULL_RANGE: Final = 2
"""``AVCOL_RANGE_JPEG``."""


@dataclass(frozen=True)
class FrameFormat:
    """In which form a batch holds its frames."""

    planes: bool = False
    """As planes, where they are coded so; else as RGB."""
    scale: float = 1.0
    """Size relative to the frame, of RGB."""
    new_array: NewArray = np.empty
    """Where planes are put: into memory from which a GPU copies fast."""

    def form(self, frame: VideoFrame) -> Hashable:
        """Equal for frames that fit into one batch."""
        coding = coding_of_frame(frame) if self.planes else None
        return coding or (frame.width, frame.height, quarter_turns(frame) % 2)

    def pack(self, frames: Sequence[VideoFrame]) -> Images:
        """Frames of equal form, maybe none."""
        if not frames:
            return np.zeros((0, 0, 0, 3), np.uint8)
        coding = coding_of_frame(frames[0]) if self.planes else None
        if coding is None:
            return self._rgb(frames)
        if _on_gpu(frames[0]):
            return DeviceImages(coding, tuple(tuple(frame.planes) for frame in frames))
        planes = tuple(self.new_array((len(frames), *shape), coding.dtype) for shape in coding.plane_shapes)
        for number, frame in enumerate(frames):
            for plane, content in zip(planes, plane_contents(frame, coding), strict=True):
                plane[number] = content
        return YuvImages(coding, planes)

    def _rgb(self, frames: Sequence[VideoFrame]) -> NDArray[np.uint8]:
        """One after the other into its place, so that only one is there twice."""
        first = to_rgb(frames[0], self.scale)
        images = np.empty((len(frames), *first.shape), np.uint8)
        images[0] = first
        for number, frame in enumerate(frames[1:], 1):
            images[number] = to_rgb(frame, self.scale)
        return images


RGB: Final = FrameFormat()
"""Whole frames, converted."""


def coding_of_frame(frame: VideoFrame) -> PixelCoding | None:
    """How a frame is coded; None when it has to be converted by FFmpeg."""
    pixel_format, size_wh = frame.format.name, (frame.width, frame.height)
    if _on_gpu(frame):
        pixel_format = frame.sw_format.name if frame.sw_format else ""
        if pixel_format not in ("nv12", "p010le", "p016le") or frame.width % 2 or frame.height % 2:
            return None  # PyAV hands no others on, and of these only half of an odd size, rounded down
    return coding_of(
        pixel_format, size_wh, colour_matrix(frame), frame.color_range == _FULL_RANGE, quarter_turns(frame)
    )


def plane_contents(frame: VideoFrame, coding: PixelCoding) -> Iterator[NDArray[Any]]:
    """The planes of a frame in main memory, without the padding of their lines; valid while the frame is."""
    for plane, shape in zip(frame.planes, coding.plane_shapes, strict=True):
        lines = np.frombuffer(memoryview(plane), coding.dtype).reshape(shape[0], -1)
        content = lines[:, : int(np.prod(shape[1:]))].reshape(shape)
        yield content[::-1] if plane.line_size < 0 else content


def _on_gpu(frame: VideoFrame) -> bool:
    return frame.format.name == "cuda"


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
