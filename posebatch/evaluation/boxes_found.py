"""Who is found and who is not, by size: boxes against true ones, at IoU 0.5, each taken once.

True boxes that are ignored are places: a box that lies there by half or more and finds nobody counts as nothing.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from posebatch.core.errors import InputError
from posebatch.core.frames import check_array
from posebatch.evaluation.labels import LabelledDataset

LEAST_IOU: Final = 0.5


LEAST_VISIBLE: Final = 0.3
"""Who is hidden more than this is a place to ignore."""


IGNORED_SHARE: Final = 0.5


HEIGHTS: Final = (0, 32, 64, 128, 256)
"""Pixels at which a size begins, by which persons and false boxes are told apart."""


@dataclass(frozen=True)
class TrueBoxes:
    """The labelled persons of one frame or image."""

    bbox_xyxy: NDArray[np.float64]
    """(n, 4) pixels."""
    ignored: NDArray[np.bool_]
    """(n,) places."""

    def __post_init__(self) -> None:
        check_array("bbox_xyxy", self.bbox_xyxy, np.float64, (None, 4))
        check_array("ignored", self.ignored, np.bool_, (len(self.bbox_xyxy),))


NOBODY: Final = TrueBoxes(np.zeros((0, 4)), np.zeros(0, bool))


@dataclass(frozen=True)
class Finding:
    """How many persons are found, and how many boxes find nobody; sums over frames are made with ``+``."""

    frames: int
    persons: NDArray[np.int64]
    """(sizes,) of each of `HEIGHTS`."""
    found: NDArray[np.int64]
    """(sizes,)"""
    false: NDArray[np.int64]
    """(sizes,)"""

    def __post_init__(self) -> None:
        for name in ("persons", "found", "false"):
            check_array(name, getattr(self, name), np.int64, (len(HEIGHTS),))

    @classmethod
    def nothing(cls) -> Finding:
        """Of no frame."""
        return cls(0, *(np.zeros(len(HEIGHTS), np.int64) for _ in range(3)))

    def __add__(self, other: Finding) -> Finding:
        return Finding(
            self.frames + other.frames,
            self.persons + other.persons,
            self.found + other.found,
            self.false + other.false,
        )


def finding(truth: TrueBoxes, bbox_xyxy: NDArray[np.floating]) -> Finding:
    """What boxes (m, 4) find in one frame. The pairing is the one with the largest sum of IoU (Hungarian method)."""
    boxes, true = bbox_xyxy.astype(np.float64), truth.bbox_xyxy[~truth.ignored]
    shared, areas, true_areas = _overlaps(boxes, true)
    iou = shared / np.maximum(areas[:, None] + true_areas - shared, 1e-9)
    iou[iou < LEAST_IOU] = 0
    rows, columns = linear_sum_assignment(iou, maximize=True)
    matched = iou[rows, columns] > 0
    left = np.setdiff1d(np.arange(len(boxes)), rows[matched])
    places = truth.bbox_xyxy[truth.ignored]
    if len(places):
        inside, own, _ = _overlaps(boxes[left], places)
        left = left[inside.max(axis=1) / np.maximum(own, 1e-9) < IGNORED_SHARE]
    return Finding(1, _by_height(true), _by_height(true[columns[matched]]), _by_height(boxes[left]))


def true_boxes_of(dataset: LabelledDataset) -> list[TrueBoxes]:
    """The labelled persons of each image."""
    return [TrueBoxes(image.persons.bbox_xyxy, image.persons.ignored) for image in dataset.images]


def read_truth(path: Path) -> dict[int, TrueBoxes]:
    """True boxes by ``frame_index``, from a CSV file with the columns of `COLUMNS`; frames without rows are not in it.

    ``id`` 0 is a place to ignore, and so is a row whose ``visible`` is below `LEAST_VISIBLE`. Raises `InputError`.
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
        number: TrueBoxes(np.array([box for box, _ in found]), np.array([ignored for _, ignored in found]))
        for number, found in rows.items()
    }


COLUMNS: Final = ("frame_index", "id", "x1", "y1", "x2", "y2", "visible")


def _by_height(boxes: NDArray[np.float64]) -> NDArray[np.int64]:
    size = np.searchsorted(HEIGHTS, boxes[:, 3] - boxes[:, 1], side="right") - 1
    return np.bincount(size.clip(0), minlength=len(HEIGHTS)).astype(np.int64)


def _overlaps(
    one: NDArray[np.float64], two: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Areas in common (n, m), and those of each (n,), (m,)."""
    low, high = np.maximum(one[:, None, :2], two[None, :, :2]), np.minimum(one[:, None, 2:], two[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    return shared, (one[:, 2:] - one[:, :2]).prod(axis=1), (two[:, 2:] - two[:, :2]).prod(axis=1)
