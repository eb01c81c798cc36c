"""Counts of found persons and false boxes, by height of the box.

Boxes match true boxes one to one at IoU 0.5. A true box may be a region to ignore: an unmatched box of which half or
more lies in such a region is not counted.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.errors import InputError
from posebatch.core.frames import check_array
from posebatch.evaluation.labels import LabelledDataset

LEAST_IOU: Final = 0.5


LEAST_VISIBLE: Final = 0.3
"""The box of a person of whom a smaller share is visible is a region to ignore."""


IGNORED_SHARE: Final = 0.5
"""Share of an unmatched box inside a region to ignore from which it is not counted."""


HEIGHTS: Final = (0, 32, 64, 128, 256)
"""Lower ends of the ranges of heights, pixels."""


COLUMNS: Final = ("frame_index", "id", "x1", "y1", "x2", "y2", "visible")
"""Columns of a truth file."""


@dataclass(frozen=True)
class TrueBoxes:
    """The labelled persons of one frame or image."""

    bbox_xyxy: NDArray[np.float64]
    """(n, 4) pixels."""
    ignored: NDArray[np.bool_]
    """(n,) whether the box is a region to ignore."""

    def __post_init__(self) -> None:
        check_array("bbox_xyxy", self.bbox_xyxy, np.float64, (None, 4))
        check_array("ignored", self.ignored, np.bool_, (len(self.bbox_xyxy),))


NOBODY: Final = TrueBoxes(np.zeros((0, 4)), np.zeros(0, bool))


@dataclass(frozen=True)
class BoxCounts:
    """Counts over frames. ``+`` adds them up."""

    frames: int
    persons: NDArray[np.int64]
    """(heights,) true persons per range of `HEIGHTS`."""
    found: NDArray[np.int64]
    """(heights,) true persons with a matching box."""
    false: NDArray[np.int64]
    """(heights,) boxes that match nobody."""

    def __post_init__(self) -> None:
        for name in ("persons", "found", "false"):
            check_array(name, getattr(self, name), np.int64, (len(HEIGHTS),))

    @classmethod
    def zero(cls) -> BoxCounts:
        """The counts of no frame."""
        return cls(0, *(np.zeros(len(HEIGHTS), np.int64) for _ in range(3)))

    def __add__(self, other: BoxCounts) -> BoxCounts:
        return BoxCounts(
            self.frames + other.frames,
            self.persons + other.persons,
            self.found + other.found,
            self.false + other.false,
        )


def count_boxes(truth: TrueBoxes, bbox_xyxy: NDArray[np.floating]) -> BoxCounts:
    """Count the persons that boxes (m, 4) find in one frame.

    Boxes and persons are paired so that the sum of IoU is largest (Hungarian method).
    """
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 - optional

    boxes, true = bbox_xyxy.astype(np.float64), truth.bbox_xyxy[~truth.ignored]
    shared, areas, true_areas = _overlaps(boxes, true)
    iou = shared / np.maximum(areas[:, None] + true_areas - shared, 1e-9)
    iou[iou < LEAST_IOU] = 0
    rows, columns = linear_sum_assignment(iou, maximize=True)
    matched = iou[rows, columns] > 0
    unmatched = np.setdiff1d(np.arange(len(boxes)), rows[matched])
    regions = truth.bbox_xyxy[truth.ignored]
    if len(regions):
        inside, own, _ = _overlaps(boxes[unmatched], regions)
        unmatched = unmatched[inside.max(axis=1) / np.maximum(own, 1e-9) < IGNORED_SHARE]
    return BoxCounts(
        1, _count_by_height(true), _count_by_height(true[columns[matched]]), _count_by_height(boxes[unmatched])
    )


def true_boxes_of(dataset: LabelledDataset) -> list[TrueBoxes]:
    """The labelled persons of each image."""
    return [TrueBoxes(image.persons.bbox_xyxy, image.persons.ignored) for image in dataset.images]


def read_truth(path: Path) -> dict[int, TrueBoxes]:
    """True boxes by ``frame_index``, from a CSV file with `COLUMNS`. Frames without a row have no entry.

    A row is a region to ignore if its ``id`` is 0 or its ``visible`` is below `LEAST_VISIBLE`. Raises `InputError`.
    """
    rows: dict[int, list[tuple[list[float], bool]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                ignored = int(row["id"]) == 0 or float(row["visible"]) < LEAST_VISIBLE
                box = [float(row[edge]) for edge in ("x1", "y1", "x2", "y2")]
                rows.setdefault(int(row["frame_index"]), []).append((box, ignored))
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: no table of true boxes: {', '.join(COLUMNS)}: {error!r}") from error
    return {
        number: TrueBoxes(np.array([box for box, _ in boxes]), np.array([ignored for _, ignored in boxes]))
        for number, boxes in rows.items()
    }


def _count_by_height(boxes: NDArray[np.float64]) -> NDArray[np.int64]:
    size = np.searchsorted(HEIGHTS, boxes[:, 3] - boxes[:, 1], side="right") - 1
    return np.bincount(size.clip(0), minlength=len(HEIGHTS)).astype(np.int64)


def _overlaps(
    a: NDArray[np.float64], b: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Areas of the intersections (n, m), of the boxes ``a`` (n,), and of the boxes ``b`` (m,)."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    return shared, (a[:, 2:] - a[:, :2]).prod(axis=1), (b[:, 2:] - b[:, :2]).prod(axis=1)
