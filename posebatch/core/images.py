"""Decoded frames in memory: RGB, or planes with their colour coding, and batches of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from posebatch.core.frames import FrameRecord, check_array


class Images(Protocol):
    """A batch's decoded frames, all of one size, in one of several forms.

    RGB as an array (n, height, width, 3), turned as displayed; `YuvImages`; `DeviceImages`; or what
    `posebatch.pose.uploads.Uploads` makes of them.
    """

    def __len__(self) -> int:
        """Number of frames."""
        ...

    @property
    def nbytes(self) -> int:
        """Memory that the frames take."""
        ...


@dataclass(frozen=True)
class YuvImages:
    """Frames as the planes that came from the decoder."""

    coding: PixelCoding
    planes: tuple[NDArray[Any], ...]
    """(n, *shape) each, for the shapes of ``coding.plane_shapes``."""

    def __post_init__(self) -> None:
        for plane, shape in zip(self.planes, self.coding.plane_shapes, strict=True):
            check_array("plane", plane, self.coding.dtype, (len(self), *shape))

    def __len__(self) -> int:
        return len(self.planes[0])

    @property
    def nbytes(self) -> int:
        """See `Images.nbytes`."""
        return sum(plane.nbytes for plane in self.planes)


class DevicePlane(Protocol):
    """A plane in a GPU's memory, as DLPack hands it on."""

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        """A capsule that holds the memory."""
        ...


@dataclass(frozen=True)
class DeviceImages:
    """Frames that a GPU has decoded and keeps."""

    coding: PixelCoding
    frames: tuple[tuple[DevicePlane, ...], ...]
    """The planes of each frame."""

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def nbytes(self) -> int:
        """See `Images.nbytes`."""
        samples = sum(math.prod(shape) for shape in self.coding.plane_shapes)
        return len(self) * samples * np.dtype(self.coding.dtype).itemsize


@dataclass(frozen=True)
class FrameBatch:
    """Consecutive wanted frames of one size, decodable or not."""

    records: tuple[FrameRecord, ...]
    """One for each wanted frame, in presentation order."""
    images: Images
    """The frames whose status is ``ok``, in the order of ``records``."""
    lead_in: bool = False
    """The frames belong to earlier segments: their persons are followed into this one, and not published."""

    def __post_init__(self) -> None:
        if isinstance(self.images, np.ndarray):
            check_array("images", self.images, np.uint8, (None, None, None, 3))
        decoded = sum(record.status == "ok" for record in self.records)
        if decoded != len(self.images):
            raise ValueError(f"{decoded} records say ok, but there are {len(self.images)} images")


WEIGHTS: Final[Mapping[int, tuple[float, float]]] = {
    1: (0.2126, 0.0722),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    9: (0.2627, 0.0593),
}
"""Shares of red and blue in the brightness, by FFmpeg's number of the matrix: BT.709, BT.601 (twice), BT.2020."""


_CHROMA_STEPS: Final[Mapping[str, tuple[int, int]]] = {
    "420": (2, 2),
    "422": (2, 1),
    "444": (1, 1),
    "440": (1, 2),
    "411": (4, 1),
}


_PLANAR = re.compile(r"yuv(?P<full>j?)(?P<chroma>420|422|444|440|411)p((?P<bits>9|10|12|14|16)le)?")


_GRAY = re.compile(r"gray((?P<bits>9|10|12|14|16)le)?")


_INTERLEAVED: Final[Mapping[str, tuple[int, int]]] = {"nv12": (8, 1), "p010le": (10, 256), "p016le": (16, 256)}
"""4:2:0 with both colours in one plane: bits, and coded levels in one of 256."""


@dataclass(frozen=True)
class PixelCoding:
    """What the planes of a frame mean, and how the frame is displayed."""

    size_wh: tuple[int, int]
    """Width and height of the brightness plane, before turning."""
    chroma_step_xy: tuple[int, int] | None
    """Pixels that share one sample of the colour planes, whose sizes are rounded up; None: there are none."""
    bits: int = 8
    levels: int = 1
    """Coded levels in one of 256: 4 where 10 bits fill the low end of 16, 256 where they fill the high end."""
    interleaved: bool = False
    """Both colours lie in one plane, (h, w, 2)."""
    matrix: int = 1
    """FFmpeg's number, a key of `WEIGHTS`."""
    full_range: bool = False
    """Brightness spans 0..255, not 16..235."""
    quarter_turns: int = 0
    """Counter-clockwise turns to display it, 0 to 3."""

    @property
    def displayed_wh(self) -> tuple[int, int]:
        """Width and height as displayed."""
        width, height = self.size_wh
        return (height, width) if self.quarter_turns % 2 else (width, height)

    @property
    def chroma_wh(self) -> tuple[int, int]:
        """Width and height of the colour planes; (0, 0) when there are none."""
        if self.chroma_step_xy is None:
            return 0, 0
        (width, height), (step_x, step_y) = self.size_wh, self.chroma_step_xy
        return -(-width // step_x), -(-height // step_y)

    @property
    def plane_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of each plane: (h, w) of the brightness, and of each colour or (h, w, 2) of both."""
        (width, height), (chroma_width, chroma_height) = self.size_wh, self.chroma_wh
        if self.chroma_step_xy is None:
            return ((height, width),)
        if self.interleaved:
            return (height, width), (chroma_height, chroma_width, 2)
        return (height, width), (chroma_height, chroma_width), (chroma_height, chroma_width)

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Of the samples."""
        return np.uint8 if self.levels == 1 else np.uint16

    @property
    def repeats_xy(self) -> tuple[bool, bool]:
        """Whether a colour sample simply counts for all its pixels, along x and along y; else they are blended.

        As FFmpeg's swscale does it on the way to RGB, so that both ways give the same pictures: its fast converter for
        8 bits repeats, its general one repeats along even widths alone.
        """
        if self.chroma_step_xy is None:
            return True, True
        (width, height), (step_x, step_y) = self.size_wh, self.chroma_step_xy
        fast = self.bits == 8 and height % 2 == 0 and (step_x, step_y) in ((2, 2), (2, 1))
        return step_x == 1 or fast or (step_x == 2 and width % 2 == 0), step_y == 1 or fast

    def rgb_matrix(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(3, 3) and (3,): RGB in 0..255 is the first times (y, u, v) in coded levels, plus the second.

        Without colours (3, 1) and (3,).

        Source: ITU-R BT.709, BT.601 and BT.2020, section 4 and 5 of each: ``y = kr r + kg g + kb b``,
        ``u = (b - y) / 2 (1 - kb)``, ``v = (r - y) / 2 (1 - kr)``. Pictures without colours are full range whatever
        they say, as swscale takes them.
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
    """How frames in one of FFmpeg's pixel formats are coded; None for one without such planes.

    ``matrix`` is FFmpeg's number; None is given for a matrix that is not among `WEIGHTS`, too.
    """
    turns = quarter_turns % 4
    if matrix not in WEIGHTS:
        return None
    if pixel_format in _INTERLEAVED:
        bits, levels = _INTERLEAVED[pixel_format]
        return PixelCoding(size_wh, (2, 2), bits, levels, True, matrix, full_range, turns)
    planar, gray = _PLANAR.fullmatch(pixel_format), _GRAY.fullmatch(pixel_format)
    found = planar or gray
    if found is None:
        return None
    bits = int(found["bits"] or 8)
    steps = _CHROMA_STEPS[planar["chroma"]] if planar else None
    full = full_range or bool(planar and planar["full"])
    return PixelCoding(size_wh, steps, bits, 1 << (bits - 8), False, matrix, full, turns)


GridAlignment = Literal["edges", "origin", "one_based"]
"""``edges``: the region's outer edges lie on the grid's outer edges, so its centre is at ``(size - 1) / 2``, in the
input image and in the smaller heatmaps alike. ``origin``: its centre is at ``size / 2``, so heatmap column c lies on
input column 4c, as SimpleBaseline's code and mmpose train their networks. ``one_based``: the same with columns counted
from 1, as the MATLAB demo has it; here, where they count from 0, column c lies on 4c + 3."""
