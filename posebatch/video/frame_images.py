"""FFmpeg frames as arrays: RGB or planes, rotated as they are displayed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation
from numpy.typing import NDArray

from posebatch.core.images import DeviceImages, Images, PixelCoding, YuvImages, coding_of
from posebatch.video.orientation import UPRIGHT, Orientation

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
    size_wh: tuple[int, int] | None = None
    """Displayed size of all images before ``scale``, pixels; None: that of each frame."""
    orientation: Orientation | None = None
    """How all frames are displayed; None: as each frame says."""
    new_array: NewArray = np.empty
    """Allocates planes, for example in pinned memory, from which a GPU copies faster."""

    def batch_key(self, frame: VideoFrame) -> Hashable:
        """Equal for frames that fit into one batch: of one size and coding."""
        return self._coding(frame) or self.size_wh or self._displayed_size(frame)

    def _coding(self, frame: VideoFrame) -> PixelCoding | None:
        """The coding of a frame whose planes can be kept as they are."""
        if not self.planes or self.size_wh not in (None, self._displayed_size(frame)):
            return None
        return coding_of_frame(frame, self.orientation)

    def _displayed_size(self, frame: VideoFrame) -> tuple[int, int]:
        return displayed_size(frame, self.orientation or orientation_of(frame)[0])

    def pack(self, frames: Sequence[VideoFrame]) -> Images:
        """The images of frames with one `batch_key`, in order; for no frames an empty RGB array (0, 0, 0, 3)."""
        if not frames:
            return np.zeros((0, 0, 0, 3), np.uint8)
        coding = self._coding(frames[0])
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
        first = to_rgb(frames[0], self.scale, self.size_wh, self.orientation)
        images = np.empty((len(frames), *first.shape), np.uint8)
        images[0] = first
        for number, frame in enumerate(frames[1:], 1):
            images[number] = to_rgb(frame, self.scale, self.size_wh, self.orientation)
        return images


RGB: Final = FrameFormat()
"""Whole frames as RGB."""


def coding_of_frame(frame: VideoFrame, orientation: Orientation | None = None) -> PixelCoding | None:
    """The coding of a frame's planes; None when FFmpeg has to convert the frame, as it does a mirrored one."""
    pixel_format, size_wh = frame.format.name, (frame.width, frame.height)
    if _on_gpu(frame):
        pixel_format = frame.sw_format.name if frame.sw_format else ""
        if pixel_format not in ("nv12", "p010le", "p016le") or frame.width % 2 or frame.height % 2:
            return None  # PyAV exports no other formats, and rounds half of an odd size down
    turns = (orientation or orientation_of(frame)[0]).quarter_turns
    if turns is None:
        return None
    return coding_of(pixel_format, size_wh, colour_matrix(frame), frame.color_range == _FULL_RANGE, turns)


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


def to_rgb(
    frame: VideoFrame,
    scale: float = 1.0,
    size_wh: tuple[int, int] | None = None,
    orientation: Orientation | None = None,
) -> NDArray[np.uint8]:
    """A decoded frame as it is displayed: RGB of shape (height, width, 3), turned and mirrored, scaled.

    ``size_wh`` is the displayed size before ``scale``. Size and orientation are those of the frame by default.
    """
    orientation = orientation or orientation_of(frame)[0]
    size = size_wh or displayed_size(frame, orientation)
    width, height = (max(1, round(length * scale)) for length in (size[::-1] if orientation.transposed else size))
    smaller = width * height < frame.width * frame.height
    smooth = Interpolation.AREA if smaller else Interpolation.BILINEAR
    rgb = frame.reformat(width, height, "rgb24", src_colorspace=colour_matrix(frame), interpolation=smooth)
    return orientation.displayed(rgb.to_ndarray())


def displayed_size(frame: VideoFrame, orientation: Orientation) -> tuple[int, int]:
    """Width and height of a frame after its rotation, for square pixels."""
    size = frame.width, frame.height
    return size[::-1] if orientation.transposed else size


def orientation_of(frame: VideoFrame) -> tuple[Orientation, bool]:
    """The orientation in which a frame is displayed, and whether its display matrix says exactly that.

    PyAV then keeps the frame in memory until the next garbage collection: ask one frame of a video.
    """
    matrix: Any = frame.side_data.get(SideDataType.DISPLAYMATRIX)  # type: ignore[call-overload] # a stub says str
    if matrix is None:
        return UPRIGHT, True
    exact = Orientation.of_matrix(bytes(matrix))
    return exact or Orientation.nearest(bytes(matrix)), exact is not None


def colour_matrix(frame: VideoFrame) -> int:
    """FFmpeg's number of the colour matrix.

    Where the stream does not name it: BT.709 from 720 lines on, else BT.601, as players assume.
    """
    if frame.colorspace != UNSPECIFIED_MATRIX:
        return frame.colorspace
    return Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
