"""Decoded frames in memory.

A decoder returns frames as RGB or as planes (Y, U, V). `PixelCoding` describes what the samples of planes mean and
gives the matrix to RGB. `Images` is what a batch may hold: an RGB array, `YuvImages`, or `DeviceImages` on a GPU.
`FrameBatch` joins images with the records of their frames.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from posebatch.core.frames import FrameRecord, check_array

# --- the coding of pixels ----------------------------------------------------------------------------------------

WEIGHTS: Final[Mapping[int, tuple[float, float]]] = {
    1: (0.2126, 0.0722),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    9: (0.2627, 0.0593),
}
"""Weights of red and blue in luma, by FFmpeg's number of the matrix: BT.709, BT.601 (twice), BT.2020."""


_CHROMA_STEPS: Final[Mapping[str, tuple[int, int]]] = {
    "420": (2, 2),
    "422": (2, 1),
    "444": (1, 1),
    "440": (1, 2),
    "411": (4, 1),
}


_PLANAR: Final = re.compile(r"yuv(?P<full>j?)(?P<chroma>420|422|444|440|411)p((?P<bits>9|10|12|14|16)le)?")


_GRAY: Final = re.compile(r"gray((?P<bits>9|10|12|14|16)le)?")


_INTERLEAVED: Final[Mapping[str, tuple[int, int]]] = {"nv12": (8, 1), "p010le": (10, 256), "p016le": (16, 256)}
"""4:2:0 formats with both chroma planes interleaved: bits, and ``levels`` as in `PixelCoding`."""


@dataclass(frozen=True)
class PixelCoding:
    """Layout and colour coding of the planes of a frame, and how the frame is rotated for display."""

    size_wh: tuple[int, int]
    """Width and height of the luma plane, before rotation, pixels."""
    chroma_step_xy: tuple[int, int] | None
    """Pixels per chroma sample along x and y; plane sizes are rounded up. None: grey, without chroma."""
    bits: int = 8
    levels: int = 1
    """Coded levels per 8-bit level: 4 for 10 bits in the low end of 16, 256 for 10 bits in the high end."""
    interleaved: bool = False
    """Both chroma components are in one plane, (h, w, 2)."""
    matrix: int = 1
    """FFmpeg's number of the colour matrix, a key of `WEIGHTS`."""
    full_range: bool = False
    """Luma spans 0..255 instead of 16..235."""
    quarter_turns: int = 0
    """Counter-clockwise quarter turns to display the frame, 0 to 3."""

    @property
    def displayed_wh(self) -> tuple[int, int]:
        """Width and height after rotation, pixels."""
        width, height = self.size_wh
        return (height, width) if self.quarter_turns % 2 else (width, height)

    @property
    def chroma_wh(self) -> tuple[int, int]:
        """Width and height of the chroma planes; (0, 0) for grey."""
        if self.chroma_step_xy is None:
            return 0, 0
        (width, height), (step_x, step_y) = self.size_wh, self.chroma_step_xy
        return -(-width // step_x), -(-height // step_y)

    @property
    def plane_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of each plane: (h, w) for luma, then (h, w) for each chroma component or (h, w, 2) for both."""
        (width, height), (chroma_width, chroma_height) = self.size_wh, self.chroma_wh
        if self.chroma_step_xy is None:
            return ((height, width),)
        if self.interleaved:
            return (height, width), (chroma_height, chroma_width, 2)
        return (height, width), (chroma_height, chroma_width), (chroma_height, chroma_width)

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """The type of the samples."""
        return np.uint8 if self.levels == 1 else np.uint16

    @property
    def repeats_xy(self) -> tuple[bool, bool]:
        """Whether chroma is upsampled by repetition along x and along y; otherwise it is interpolated.

        This follows FFmpeg's swscale, so that both conversions to RGB give the same pictures. Its fast converter for
        8 bits repeats samples. Its general converter repeats along x only, and only for even widths.
        """
        if self.chroma_step_xy is None:
            return True, True
        (width, height), (step_x, step_y) = self.size_wh, self.chroma_step_xy
        fast = self.bits == 8 and height % 2 == 0 and (step_x, step_y) in ((2, 2), (2, 1))
        return step_x == 1 or fast or (step_x == 2 and width % 2 == 0), step_y == 1 or fast

    def rgb_matrix(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Matrix (3, 3) and offset (3,), such that RGB in 0..255 = matrix @ (y, u, v) + offset, in coded levels.

        For grey the matrix is (3, 1). Source: ITU-R BT.709, BT.601 and BT.2020, sections 4 and 5 of each:
        ``y = kr r + kg g + kb b``, ``u = (b - y) / 2 (1 - kb)``, ``v = (r - y) / 2 (1 - kr)``. Grey is always taken
        as full range, as swscale does.
        """
        if self.chroma_step_xy is None:
            return np.full((3, 1), 1 / self.levels), np.zeros(3)
        kr, kb = WEIGHTS[self.matrix]
        kg = 1 - kr - kb
        of_v, of_u = 2 * (1 - kr), 2 * (1 - kb)
        matrix = np.array([[1, 0, of_v], [1, -of_u * kb / kg, -of_v * kr / kg], [1, of_u, 0]])
        black, luma_span, chroma_span = (0, 255, 255) if self.full_range else (16, 219, 224)
        matrix *= 255 / np.array([luma_span, chroma_span, chroma_span])
        offset = -matrix @ np.array([black, 128, 128])
        return matrix / self.levels, offset


def coding_of(
    pixel_format: str, size_wh: tuple[int, int], matrix: int, full_range: bool, quarter_turns: int = 0
) -> PixelCoding | None:
    """The coding of frames in one of FFmpeg's pixel formats; None if the format or the matrix is not supported.

    ``matrix`` is FFmpeg's number, see `WEIGHTS`.
    """
    turns = quarter_turns % 4
    if matrix not in WEIGHTS:
        return None
    if pixel_format in _INTERLEAVED:
        bits, levels = _INTERLEAVED[pixel_format]
        return PixelCoding(size_wh, (2, 2), bits, levels, True, matrix, full_range, turns)
    planar, gray = _PLANAR.fullmatch(pixel_format), _GRAY.fullmatch(pixel_format)
    match = planar or gray
    if match is None:
        return None
    bits = int(match["bits"] or 8)
    steps = _CHROMA_STEPS[planar["chroma"]] if planar else None
    full = full_range or bool(planar and planar["full"])
    return PixelCoding(size_wh, steps, bits, 1 << (bits - 8), False, matrix, full, turns)


# --- batches of frames -------------------------------------------------------------------------------------------


class Images(Protocol):
    """The decoded frames of a batch, all of one size.

    One of: an RGB array (n, height, width, 3), rotated for display; `YuvImages`; `DeviceImages`; or what
    `posebatch.pose.uploads.Uploads` makes of these.
    """

    def __len__(self) -> int:
        """Number of frames."""
        ...

    @property
    def nbytes(self) -> int:
        """Memory of the frames, bytes."""
        ...


@dataclass(frozen=True)
class YuvImages:
    """Frames as planes in main memory, as a decoder returns them."""

    coding: PixelCoding
    planes: tuple[NDArray[Any], ...]
    """One array (n, *shape) for each shape of ``coding.plane_shapes``."""

    def __post_init__(self) -> None:
        for plane, shape in zip(self.planes, self.coding.plane_shapes, strict=True):
            check_array("plane", plane, self.coding.dtype, (len(self), *shape))

    def __len__(self) -> int:
        return len(self.planes[0])

    @property
    def nbytes(self) -> int:
        """Memory of all planes, bytes."""
        return sum(plane.nbytes for plane in self.planes)


class DevicePlane(Protocol):
    """A plane in GPU memory that DLPack can export."""

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        """A DLPack capsule of the memory."""
        ...


@dataclass(frozen=True)
class DeviceImages:
    """Frames that a GPU has decoded, as planes in its memory."""

    coding: PixelCoding
    frames: tuple[tuple[DevicePlane, ...], ...]
    """The planes of each frame."""

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def nbytes(self) -> int:
        """Memory of all planes on the GPU, bytes."""
        samples = sum(math.prod(shape) for shape in self.coding.plane_shapes)
        return len(self) * samples * np.dtype(self.coding.dtype).itemsize


@dataclass(frozen=True)
class FrameBatch:
    """Consecutive sampled frames of one size, decodable or not."""

    records: tuple[FrameRecord, ...]
    """One per sampled frame, in presentation order."""
    images: Images
    """The frames whose status is ``ok``, in the order of ``records``."""
    lead_in: bool = False
    """The frames belong to earlier segments. Their persons are followed into this segment, but not published."""
    segment: int = 0
    """Number of the segment among those whose batches follow each other. Nobody is followed from one to the next."""

    def __post_init__(self) -> None:
        if isinstance(self.images, np.ndarray):
            check_array("images", self.images, np.uint8, (None, None, None, 3))
        decoded = sum(record.status == "ok" for record in self.records)
        if decoded != len(self.images):
            raise ValueError(f"{decoded} records say ok, but there are {len(self.images)} images")


GridAlignment = Literal["edges", "origin", "one_based"]
"""How an image region is aligned with the pixel grid of the network's input and of its smaller heatmaps.

``edges``: the outer edges of region and grid coincide, so the region's centre is at ``(size - 1) / 2`` in both.
``origin``: the region's centre is at ``size / 2``, so heatmap column c lies on input column 4c. The code of
SimpleBaseline and mmpose train this way. ``one_based``: as ``origin`` with columns counted from 1, as in the MATLAB
demo; counted from 0, column c lies on 4c + 3."""
