"""Split a frame into overlapping tiles, and merge the boxes found in tiles into boxes of the frame.

A detector resizes each image to its small input, so small people in a wide frame become undetectable. In a tile they
are larger. A person at the border of a tile is cut there, but whole in the neighbouring tile, which overlaps. Large
people are detected in the whole frame, called the overview.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.frames import Detections, check_array

OVERLAP: Final = 0.25
"""Minimum overlap of neighbouring tiles, as a share of a tile's side."""


ALIGNMENT: Final = 4
"""Pixels. Tiles begin at multiples of it, where every chroma subsampling has a sample."""


CUT_MARGIN: Final = 0.02
"""Share of a tile's side. A box that ends within this distance of an inner border counts as cut."""


CUT_OVERLAP: Final = 0.6
"""A cut box with more than this share of its area in another box is a part of that person."""


LARGE_SHARE: Final = 0.3
"""A person is large from this share of the frame's height or width."""


LARGE_OVERLAP: Final = 0.7
"""A tile's box with more than this share of its area in a large person is a part of that person."""


_GRID = re.compile(r"([1-8])x([1-8])")


@dataclass(frozen=True)
class Grid:
    """Number of rows and columns of tiles in a frame."""

    rows: int
    columns: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}"

    @classmethod
    def parse(cls, text: str) -> Grid:
        """Parse ``RxC``, such as ``2x4``. Raises ``ValueError`` for anything else and for more than 8 of either."""
        match = _GRID.fullmatch(text)
        if match is None:
            raise ValueError(f"must be rows x columns such as 2x4, 1 to 8 of each, got {text!r}")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True)
class Tile:
    """A rectangle of the displayed frame, in whole pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height, pixels."""
        return self.width, self.height


@dataclass(frozen=True)
class TileBoxes:
    """Persons found in the tiles of one frame."""

    bbox_xyxy: NDArray[np.float32]
    """(n, 4) x1, y1, x2, y2, pixels of the frame."""
    scores: NDArray[np.float32]
    """(n,)"""
    cut: NDArray[np.bool_]
    """(n,) whether the box ends at a tile border inside the frame."""

    def __post_init__(self) -> None:
        n = len(self.bbox_xyxy)
        check_array("bbox_xyxy", self.bbox_xyxy, np.float32, (n, 4))
        check_array("scores", self.scores, np.float32, (n,))
        check_array("cut", self.cut, np.bool_, (n,))


def tiles_of(frame_size_wh: tuple[int, int], grid: Grid) -> tuple[Tile, ...]:
    """The tiles of a frame, row by row. They are distinct, of equal size, and cover the frame.

    Neighbours overlap by `OVERLAP` of their side or a few pixels more. Small frames may get fewer tiles than the grid.
    """
    lefts, width = _spans(frame_size_wh[0], grid.columns)
    tops, height = _spans(frame_size_wh[1], grid.rows)
    return tuple(Tile(left, top, width, height) for top in tops for left in lefts)


def _spans(length: int, count: int) -> tuple[list[int], int]:
    """Starts and common length of ``count`` overlapping spans that cover ``length`` pixels; fewer if it is short."""
    shortest = length / (count - (count - 1) * OVERLAP)
    last = int((length - shortest) // ALIGNMENT) * ALIGNMENT  # the last span begins at a multiple, too
    starts = {round(last * i / (count - 1) / ALIGNMENT) * ALIGNMENT for i in range(count)} if count > 1 else {0}
    return sorted(starts), length - last


def in_frame(detections: Detections, tile: Tile, frame_size_wh: tuple[int, int]) -> TileBoxes:
    """Convert boxes from pixels of a tile to pixels of the frame, and mark those that are cut."""
    boxes = detections.bbox_xyxy + np.array([tile.left, tile.top] * 2, np.float32)
    low, high = np.array([tile.left, tile.top]) - 0.5, np.array([tile.left + tile.width, tile.top + tile.height]) - 0.5
    margin = CUT_MARGIN * np.array(tile.size_wh)
    inner_low, inner_high = low > 0, high < np.array(frame_size_wh) - 0.5
    at_border = (inner_low & (boxes[:, :2] < low + margin)) | (inner_high & (boxes[:, 2:] > high - margin))
    cut: NDArray[np.bool_] = np.asarray(at_border.any(axis=1))
    return TileBoxes(boxes.astype(np.float32), detections.scores, cut)


def merge(
    parts: Sequence[TileBoxes],
    overview: Detections,
    frame_size_wh: tuple[int, int],
    nms_thr: float,
    max_persons: int,
) -> Detections:
    """Merge the boxes of all tiles and of the overview (the whole frame) into the persons of one frame.

    Large persons (`LARGE_SHARE`) are taken from the overview alone, because tiles mistake their arms and bags for
    people. Boxes are ranked: large ones first, then uncut ones, then cut ones, each by score; equal scores keep their
    order. In this order a box is dropped if it repeats a kept box:

    - its IoU with the kept box is above ``nms_thr``;
    - it is cut, and more than `CUT_OVERLAP` of its area is in the kept box;
    - it is from a tile, and more than `LARGE_OVERLAP` of its area is in a kept large person.

    The best ``max_persons`` boxes are returned, by score.
    """
    boxes = np.concatenate([*(part.bbox_xyxy for part in parts), overview.bbox_xyxy]).astype(np.float64)
    scores = np.concatenate([*(part.scores for part in parts), overview.scores])
    cut = np.concatenate([*(part.cut for part in parts), np.zeros(len(overview), bool)])
    in_overview = np.arange(len(boxes)) >= len(boxes) - len(overview)
    sides = boxes[:, 2:] - boxes[:, :2]
    areas, large = sides.prod(axis=1), np.asarray((sides / frame_size_wh >= LARGE_SHARE).any(axis=1))
    order = np.lexsort((-scores, np.where(large, 0, 1 + cut)))
    order = order[(in_overview | ~large)[order]]
    kept: list[int] = []
    while len(order):
        best, others = int(order[0]), order[1:]
        kept.append(best)
        shared = _intersections(boxes[best], boxes[others])
        same = shared > nms_thr * (areas[best] + areas[others] - shared)
        part = cut[others] & (shared > CUT_OVERLAP * areas[others])
        if large[best]:
            part |= ~in_overview[others] & (shared > LARGE_OVERLAP * areas[others])
        order = others[~(same | part)]
    ranked = np.array(kept, np.intp)
    ranked = ranked[np.argsort(-scores[ranked], kind="stable")]
    best_ranked = ranked[:max_persons]
    left_out = len(ranked) - len(best_ranked)
    return Detections(boxes[best_ranked].astype(np.float32), scores[best_ranked], left_out)


def _intersections(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Areas of the intersections of boxes (n, 4) with one box (4,): (n,), square pixels."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared: NDArray[Any] = sides.clip(0).prod(axis=1)
    return shared
