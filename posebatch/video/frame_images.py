"""FFmpeg frames as arrays: RGB or planes, rotated as they are displayed."""

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
"""Makes an uninitialised array of a shape and dtype."""


_FULL_RANGE: Final = 2
"""FFmpeg's ``AVCOL_RANGE_JPEG``."""


@dataclass(frozen=True)
class FrameFormat:
    """The form in which a batch holds its frames."""

    planes: bool = False
    """As planes, where the coding is a supported one; else as RGB."""
    scale: float = 1.0
    """Size of RGB images relative to the frame."""
    new_array: NewArray = np.empty
    """Allocates planes, for example in pinned memory, from which a GPU copies faster."""

    def batch_key(self, frame: VideoFrame) -> Hashable:
        """Equal for frames that fit into one batch: of one size and coding."""
        coding = coding_of_frame(frame) if self.planes else None
        return coding or (frame.width, frame.height, quarter_turns(frame) % 2)

    def pack(self, frames: Sequence[VideoFrame]) -> Images:
        """The images of frames with one `batch_key`, in order; for no frames an empty RGB array (0, 0, 0, 3)."""
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
        # each is converted into its place: at most one image exists twice
        first = to_rgb(frames[0], self.scale)
        images = np.empty((len(frames), *first.shape), np.uint8)
        images[0] = first
        for number, frame in enumerate(frames[1:], 1):
            images[number] = to_rgb(frame, self.scale)
        return images


RGB: Final = FrameFormat()
"""Whole frames as RGB."""


def coding_of_frame(frame: VideoFrame) -> PixelCoding | None:
    """The coding of a frame's planes; None when FFmpeg has to convert the frame."""
    pixel_format, size_wh = frame.format.name, (frame.width, frame.height)
    if _on_gpu(frame):
        pixel_format = frame.sw_format.name if frame.sw_format else ""
        if pixel_format not in ("nv12", "p010le", "p016le") or frame.width % 2 or frame.height % 2:
            return None  # PyAV exports no other formats, and rounds half of an odd size down
    return coding_of(
        pixel_format, size_wh, colour_matrix(frame), frame.color_range == _FULL_RANGE, quarter_turns(frame)
    )


def plane_contents(frame: VideoFrame, coding: PixelCoding) -> Iterator[NDArray[Any]]:
    """The planes of a frame in main memory, without the padding of their lines; views, valid as long as the frame."""
    for plane, shape in zip(frame.planes, coding.plane_shapes, strict=True):
        lines = np.frombuffer(memoryview(plane), coding.dtype).reshape(shape[0], -1)
        content = lines[:, : int(np.prod(shape[1:]))].reshape(shape)
        yield content[::-1] if plane.line_size < 0 else content


def _on_gpu(frame: VideoFrame) -> bool:
    return frame.format.name == "cuda"


UNSPECIFIED_MATRIX: Final = 2
"""FFmpeg's ``AVCOL_SPC_UNSPECIFIED``: the stream does not name its colour matrix."""


def to_rgb(frame: VideoFrame, scale: float = 1.0) -> NDArray[np.uint8]:
    """A decoded frame as it is displayed: RGB of shape (height, width, 3), rotated and scaled."""
    width, height = (max(1, round(length * scale)) for length in (frame.width, frame.height))
    smooth = Interpolation.AREA if scale < 1 else Interpolation.BILINEAR
    rgb = frame.reformat(width, height, "rgb24", src_colorspace=colour_matrix(frame), interpolation=smooth)
    return np.rot90(rgb.to_ndarray(), quarter_turns(frame))


def colour_matrix(frame: VideoFrame) -> int:
    """FFmpeg's number of the colour matrix.

    Where the stream does not name it: BT.709 from 720 lines on, else BT.601, as players assume.
    """
    if frame.colorspace != UNSPECIFIED_MATRIX:
        return frame.colorspace
    return Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601


def quarter_turns(frame: VideoFrame) -> int:
    """Counter-clockwise turns by 90 degrees, from the display matrix; other angles are rounded."""
    return round(frame.rotation / 90)
