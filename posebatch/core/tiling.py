"""Frames in overlapping tiles, and the boxes found in tiles as those of the frame.

A detector resizes what it is given to its own small input, so people who are small in a wide frame vanish. In a tile
they are larger. A person who stands on the border of a tile is cut there; the neighbour, which overlaps, sees them
whole. People who are large in the frame are those of an overview, in which the detector sees all of it.
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
"""Share of a tile's side that it has in common with its neighbour, at the least."""


ALIGNMENT: Final = 4
"""Pixels. Tiles begin at multiples, where every coding of colours has a sample of its own."""


TOUCHING: Final = 0.02
"""Share of a tile's side. A box that ends so near to a border between tiles is cut there."""


CONTAINED: Final = 0.6
"""Of a cut box, this share of its area in another box makes it a piece of that."""


LARGE: Final = 0.3
"""Share of the frame's height or width, from which a person is large."""


INSIDE: Final = 0.7
"""Of a tile's box, this share of its area in a large person makes it a piece of that."""


_GRID = re.compile(r"([1-8])x([1-8])")


@dataclass(frozen=True)
class Grid:
    """In how many rows and columns of tiles a frame is cut."""

    rows: int
    columns: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}"

    @classmethod
    def parse(cls, text: str) -> Grid:
        """From ``RxC``. Raises ``ValueError`` for anything else, and for more than 8 of either."""
        found = _GRID.fullmatch(text)
        if found is None:
            raise ValueError(f"must be rows x columns such as 2x4, 1 to 8 of each, got {text!r}")
        return cls(int(found[1]), int(found[2]))


@dataclass(frozen=True)
class Tile:
    """A rectangle of whole pixels of the displayed frame."""

    left: int
    top: int
    width: int
    height: int

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height


@dataclass(frozen=True)
class TileBoxes:
    """The persons found in all tiles of one frame."""

    bbox_xyxy: NDArray[np.float32]
    """(n, 4) x1, y1, x2, y2 in pixels of the frame."""
    scores: NDArray[np.float32]
    """(n,)"""
    cut: NDArray[np.bool_]
    """(n,) whether the box ends at a border that lies inside the frame."""

    def __post_init__(self) -> None:
        n = len(self.bbox_xyxy)
        check_array("bbox_xyxy", self.bbox_xyxy, np.float32, (n, 4))
        check_array("scores", self.scores, np.float32, (n,))
        check_array("cut", self.cut, np.bool_, (n,))


def tiles_of(frame_size_wh: tuple[int, int], grid: Grid) -> tuple[Tile, ...]:
    """The tiles of a frame, row by row: all of one size, together the whole frame, none of them twice.

    They depend on the frame's size alone. Neighbours overlap by `OVERLAP` of their side or a few pixels more.
    """
    lefts, width = _spans(frame_size_wh[0], grid.columns)
    tops, height = _spans(frame_size_wh[1], grid.rows)
    return tuple(Tile(left, top, width, height) for top in tops for left in lefts)


def _spans(length: int, count: int) -> tuple[list[int], int]:
    """Where ``count`` spans begin that cover 0..length, and how long they are; fewer where pixels are few."""
    shortest = length / (count - (count - 1) * OVERLAP)
    last = int((length - shortest) // ALIGNMENT) * ALIGNMENT  # so that the last span begins at a multiple too
    starts = {round(last * i / (count - 1) / ALIGNMENT) * ALIGNMENT for i in range(count)} if count > 1 else {0}
    return sorted(starts), length - last


def in_frame(found: Detections, tile: Tile, frame_size_wh: tuple[int, int]) -> TileBoxes:
    """Boxes of a tile, in the tile's pixels, as boxes of the frame."""
    boxes = found.bbox_xyxy + np.array([tile.left, tile.top] * 2, np.float32)
    low, high = np.array([tile.left, tile.top]) - 0.5, np.array([tile.left + tile.width, tile.top + tile.height]) - 0.5
    near = TOUCHING * np.array(tile.size_wh)
    inside = high < np.array(frame_size_wh) - 0.5
    ends = ((low > 0) & (boxes[:, :2] < low + near)) | (inside & (boxes[:, 2:] > high - near))
    cut: NDArray[np.bool_] = np.asarray(ends.any(axis=1))
    return TileBoxes(boxes.astype(np.float32), found.scores, cut)


def merge(
    parts: Sequence[TileBoxes],
    overview: Detections,
    frame_size_wh: tuple[int, int],
    nms_thr: float,
    max_persons: int,
) -> Detections:
    """The persons of one frame, from the boxes of its tiles and those of the overview, the whole frame at small size.

    Large persons, at least `LARGE` of the frame tall or wide, are those of the overview: it sees them whole, where a
    tile takes arms and bags for people. Its boxes of them come first, and tiles give none. Then come the other boxes
    that are not cut, by score, and then those that are. A box drops out that overlaps one that stays by more than
    ``nms_thr`` (IoU); a cut one also when `CONTAINED` of its area lies in one, and a tile's when `INSIDE` of it lies in
    a large person.
    Equals keep their order.
    """
    boxes = np.concatenate([*(part.bbox_xyxy for part in parts), overview.bbox_xyxy]).astype(np.float64)
    scores = np.concatenate([*(part.scores for part in parts), overview.scores])
    cut = np.concatenate([*(part.cut for part in parts), np.zeros(len(overview), bool)])
    seen_whole = np.arange(len(boxes)) >= len(boxes) - len(overview)
    sides = boxes[:, 2:] - boxes[:, :2]
    areas, large = sides.prod(axis=1), np.asarray((sides / frame_size_wh >= LARGE).any(axis=1))
    order = np.lexsort((-scores, np.where(large, 0, 1 + cut)))
    order = order[(seen_whole | ~large)[order]]
    kept: list[int] = []
    while len(order):
        best, others = int(order[0]), order[1:]
        kept.append(best)
        shared = _shared(boxes[best], boxes[others])
        same = shared > nms_thr * (areas[best] + areas[others] - shared)
        piece = cut[others] & (shared > CONTAINED * areas[others])
        if large[best]:
            piece |= ~seen_whole[others] & (shared > INSIDE * areas[others])
        order = others[~(same | piece)]
    ranked = np.array(kept, np.intp)
    ranked = ranked[np.argsort(-scores[ranked], kind="stable")]
    wanted = ranked[:max_persons]
    return Detections(boxes[wanted].astype(np.float32), scores[wanted], len(ranked) - len(wanted))


def _shared(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Areas that boxes (n, 4) have in common with one box (4,): (n,)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared: NDArray[Any] = sides.clip(0).prod(axis=1)
    return shared
