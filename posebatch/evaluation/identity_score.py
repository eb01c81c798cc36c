"""How well tracks keep people apart: IDF1, switches and fragmentations against true identities.

IDF1 is that of Ristani et al. (ECCV 2016 workshops): the one assignment of tracks to people that explains most boxes.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from posebatch.core.errors import InputError
from posebatch.core.frames import check_array
from posebatch.core.similarity import box_iou
from posebatch.evaluation.boxes_found import IGNORED_SHARE, LEAST_IOU, LEAST_VISIBLE


@dataclass(frozen=True)
class Identities:
    """True boxes (n) and whose they are, by frame."""

    frame_index: NDArray[np.int64]
    """(n,) ascending."""
    person: NDArray[np.int64]
    """(n,) from 1; 0: a region to ignore."""
    span: NDArray[np.int64]
    """(n,) how many times the person has appeared so far."""
    bbox_xyxy: NDArray[np.float64]
    """(n, 4) pixels."""
    visible: NDArray[np.float64]
    """(n,) share of the person that is visible."""

    def __post_init__(self) -> None:
        rows = len(self.frame_index)
        check_array("frame_index", self.frame_index, np.int64, (None,))
        check_array("person", self.person, np.int64, (rows,))
        check_array("span", self.span, np.int64, (rows,))
        check_array("bbox_xyxy", self.bbox_xyxy, np.float64, (rows, 4))
        check_array("visible", self.visible, np.float64, (rows,))

    @property
    def counted(self) -> NDArray[np.bool_]:
        """(n,) whether the box must be found. The others are regions to ignore."""
        return (self.person > 0) & (self.visible >= LEAST_VISIBLE)

    @property
    def frames(self) -> range:
        """The frames that are labelled, also those without a row."""
        if not len(self.frame_index):
            return range(0)
        return range(int(self.frame_index.min()), int(self.frame_index.max()) + 1)


@dataclass(frozen=True)
class TrackedBoxes:
    """Boxes (m) and their tracks."""

    frame_index: NDArray[np.int64]
    """(m,) ascending."""
    bbox_xyxy: NDArray[np.float64]
    """(m, 4) pixels."""
    track: NDArray[np.int64]
    """(m,) -1: no track; such a box is left out."""

    def __post_init__(self) -> None:
        check_array("frame_index", self.frame_index, np.int64, (None,))
        check_array("bbox_xyxy", self.bbox_xyxy, np.float64, (len(self.frame_index), 4))
        check_array("track", self.track, np.int64, (len(self.frame_index),))


@dataclass(frozen=True)
class IdentityScore:
    """Figures of one clip."""

    idf1: float
    switches: int
    """How often a person's box has another track than the person's box before."""
    fragmentations: int
    """How often a person is found, then not found, then found again, in one span."""
    found: float
    """Share of the true boxes that are found."""


@dataclass(frozen=True)
class _Matches:
    """What the boxes of a clip have in common with the truth."""

    of_truth: NDArray[np.int64]
    """(n,) the box matched to each true box, -1: none."""
    overlapping: Counter[tuple[int, int]]
    """Frames in which a person and a track overlap."""
    predictions: int
    """Boxes that count: those not in regions to ignore."""


def read_identities(path: Path) -> Identities:
    """True identities from a CSV file: frame_index, id, span, x1, y1, x2, y2, visible. Raises `InputError`."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = sorted(csv.DictReader(file), key=lambda row: (int(row["frame_index"]), int(row["id"])))
        boxes = [[float(row[edge]) for edge in ("x1", "y1", "x2", "y2")] for row in rows]
        return Identities(
            np.array([int(row["frame_index"]) for row in rows], np.int64),
            np.array([int(row["id"]) for row in rows], np.int64),
            np.array([int(row["span"]) for row in rows], np.int64),
            np.array(boxes, np.float64).reshape(-1, 4),
            np.array([float(row["visible"]) for row in rows], np.float64),
        )
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: no table of true identities: {error!r}") from error


def score_tracks(truth: Identities, boxes: TrackedBoxes) -> IdentityScore:
    """Score tracks. Boxes count from the truth's first frame to its last, and only those with a track."""
    with_track = boxes.track >= 0
    boxes = TrackedBoxes(boxes.frame_index[with_track], boxes.bbox_xyxy[with_track], boxes.track[with_track])
    matches = _match(truth, boxes)
    counted = truth.counted
    switches = fragmentations = 0
    for person in np.unique(truth.person[counted]):
        rows = np.flatnonzero(counted & (truth.person == person))
        met = matches.of_truth[rows]
        tracks = boxes.track[met[met >= 0]]
        switches += int((tracks[1:] != tracks[:-1]).sum())
        for span in np.unique(truth.span[rows]):
            seen = np.flatnonzero(met[truth.span[rows] == span] >= 0)
            fragmentations += int((np.diff(seen) > 1).sum())
    total = max(1, int(counted.sum()) + matches.predictions)
    found = float((matches.of_truth[counted] >= 0).mean()) if counted.any() else 0.0
    return IdentityScore(2 * _explained(matches.overlapping) / total, switches, fragmentations, found)


def true_tracks(truth: Identities, boxes: TrackedBoxes) -> TrackedBoxes:
    """The best tracks that ``boxes`` allow: each box has the person that it matches. The other boxes share a track."""
    of_truth = _match(truth, boxes).of_truth
    rows = np.flatnonzero(of_truth >= 0)
    track = np.full(len(boxes.track), int(truth.person.max(initial=0)) + 1, np.int64)
    track[of_truth[rows]] = truth.person[rows]
    return TrackedBoxes(boxes.frame_index, boxes.bbox_xyxy, track)


def _match(truth: Identities, boxes: TrackedBoxes) -> _Matches:
    of_truth = np.full(len(truth.person), -1, np.int64)
    overlapping: Counter[tuple[int, int]] = Counter()
    predictions = 0
    true_rows = _by_frame(truth.frame_index)
    labelled_frames = truth.frames
    nobody = np.zeros(0, np.int64)
    for frame, predicted in _by_frame(boxes.frame_index).items():
        if frame not in labelled_frames:
            continue
        labelled = true_rows.get(frame, nobody)
        people, ignored = labelled[truth.counted[labelled]], labelled[~truth.counted[labelled]]
        iou = box_iou(boxes.bbox_xyxy[predicted], truth.bbox_xyxy[people])
        iou[iou < LEAST_IOU] = 0
        rows, columns = linear_sum_assignment(iou, maximize=True)
        matched = iou[rows, columns] > 0
        of_truth[people[columns[matched]]] = predicted[rows[matched]]
        counts = ~_inside(boxes.bbox_xyxy[predicted], truth.bbox_xyxy[ignored])
        counts[rows[matched]] = True
        predictions += int(counts.sum())
        for row, column in zip(*np.nonzero((iou > 0) & counts[:, None]), strict=True):
            overlapping[int(truth.person[people[column]]), int(boxes.track[predicted[row]])] += 1
    return _Matches(of_truth, overlapping, predictions)


def _by_frame(frame_index: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    rows: dict[int, list[int]] = defaultdict(list)
    for row, frame in enumerate(frame_index.tolist()):
        rows[frame].append(row)
    return {frame: np.array(members, np.int64) for frame, members in rows.items()}


def _inside(boxes: NDArray[np.float64], regions: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether half or more of each box (m, 4) lies in one of the regions (r, 4)."""
    low = np.maximum(boxes[:, None, :2], regions[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2).max(axis=1, initial=0.0)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    inside: NDArray[np.bool_] = (shared / np.maximum(area, 1e-9) >= IGNORED_SHARE) & (len(regions) > 0)
    return inside


def _explained(overlapping: Counter[tuple[int, int]]) -> int:
    """Boxes explained by the best one-to-one assignment of tracks to people."""
    people = sorted({person for person, _ in overlapping})
    tracks = sorted({track for _, track in overlapping})
    together = np.zeros((len(people), len(tracks)))
    for (person, track), count in overlapping.items():
        together[people.index(person), tracks.index(track)] = count
    return int(together[linear_sum_assignment(together, maximize=True)].sum())
