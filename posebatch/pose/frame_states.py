"""The states of a frame on its way through the networks: decoded, located, posed, finished.

Every state is frozen. Each step makes the next state from the one before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from posebatch.core.frames import Detections, FramePoses, FrameRecord, check_array
from posebatch.core.settings import EstimatorSettings
from posebatch.core.similarity import oks_nms, rescore
from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.models.networks.pixels import Pixels
from posebatch.pose.following import FollowedPersons, joint_confidence, needs_redetection
from posebatch.pose.pixels import JoinedPixels
from posebatch.pose.recovery import still_seen

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class HeldImages:
    """The decoded images of one batch."""

    pixels: Pixels
    size_bytes: int
    grey: NDArray[np.uint8] | None = None
    """(n, h, w) small pictures for optical flow; None without ``recover_flow``."""


class FrameGroup:
    """Frames among which persons are followed or recovered. Each frame waits until the one before it is finished."""

    def __init__(self, key: tuple[int, int, tuple[int, int]]) -> None:
        self.key = key
        """Number of the segment, number of the group in its video, and width and height of its frames."""
        self.waiting: deque[Frame] = deque()
        """Frames that were read while an earlier frame of the group was unfinished."""
        self.detected: dict[Frame, Detections] = {}
        """The persons that the detector found in waiting frames."""
        self.last: Finished | None = None
        """The newest frame, once it is finished; None while a frame of the group is unfinished."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A decoded frame."""

    record: FrameRecord
    images: HeldImages
    number: int
    """Index among the images."""
    group: FrameGroup
    output_index: int | None
    """Index among the results; None for a lead-in frame, which has no result."""
    is_detected: bool = True
    """Whether the detector runs on the frame in any case."""

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height, pixels."""
        return self.images.pixels.size_wh

    @property
    def grey(self) -> NDArray[np.uint8] | None:
        """(h, w) its small picture for optical flow."""
        return None if self.images.grey is None else self.images.grey[self.number]


@dataclass(frozen=True, eq=False)
class Located:
    """A frame whose boxes are known."""

    frame: Frame
    detections: Detections
    followed: FollowedPersons | None
    """The persons followed from the frame before; None when the detector gave the boxes."""
    regions: NDArray[np.float64]
    """(persons, 4) crop region of each box: centre x, y, width, height in the frame, pixels."""
    carried: NDArray[np.float32] | None = None
    """(persons,) `MergedPersons.confidences`; None where nobody was carried from the frame before."""

    def __post_init__(self) -> None:
        check_array("regions", self.regions, np.float64, (len(self.detections), 4))
        if self.carried is not None:
            check_array("carried", self.carried, np.float32, (len(self.detections),))


@dataclass(frozen=True, eq=False)
class Posed:
    """A frame whose keypoints are known."""

    located: Located
    keypoints: NDArray[np.float32]
    """(persons, 17, 3) x, y, score in the frame, in the order of the boxes."""

    def __post_init__(self) -> None:
        check_array("keypoints", self.keypoints, np.float32, (len(self.located.detections), NUM_KEYPOINTS, 3))


@dataclass(frozen=True, eq=False)
class Finished:
    """A frame whose persons are known."""

    poses: FramePoses
    confidences: NDArray[np.float32]
    """(persons,) `joint_confidence` of each person in the frame in which the detector found them."""
    grey: NDArray[np.uint8] | None = None
    """(h, w) small picture of the frame for optical flow."""

    def __post_init__(self) -> None:
        check_array("confidences", self.confidences, np.float32, (len(self.poses),))


def finish(posed: Posed, settings: EstimatorSettings) -> Finished | None:
    """Rank the persons of a frame and drop duplicates and carried persons who are not there.

    None when the frame must be detected again.
    """
    located, keypoints = posed.located, posed.keypoints
    if located.followed is not None and needs_redetection(keypoints, located.followed):
        return None
    detections = located.detections
    pose_scores = rescore(detections.scores, keypoints[:, :, 2], settings.kpt_thr)
    areas = located.regions[:, 2:].prod(axis=1)
    seen = np.arange(len(keypoints)) if located.carried is None else still_seen(keypoints, located.carried)
    rank = seen[oks_nms(keypoints[seen, :, :2], pose_scores[seen], areas[seen], settings.same_person_oks)]
    boxes, box_scores = detections.bbox_xyxy[rank], detections.scores[rank]
    poses = FramePoses(located.frame.record, boxes, box_scores, pose_scores[rank], keypoints[rank], detections.left_out)
    return Finished(poses, _confidences(posed)[rank], located.frame.grey)


def _confidences(posed: Posed) -> NDArray[np.float32]:
    """`joint_confidence` of each person in the frame in which the detector found them."""
    located = posed.located
    if located.followed is not None:
        return located.followed.confidences
    confidences = joint_confidence(posed.keypoints)
    if located.carried is None:
        return confidences
    return np.where(np.isnan(located.carried), confidences, located.carried)


def pixels_of(frames: Sequence[Frame]) -> Pixels:
    """The pixels of frames of one size, from one batch or from several."""
    runs = consecutive_runs((frame.images, frame.number) for frame in frames)
    parts = [images.pixels[numbers.start : numbers.stop] for images, numbers in runs]
    return parts[0] if len(parts) == 1 else JoinedPixels(parts)


def consecutive_runs(positions: Iterable[tuple[T, int]]) -> list[tuple[T, range]]:
    """Merge indices that follow each other in one source: (a, 3), (a, 4), (b, 5) -> (a, 3..4), (b, 5..5).

    A run is one slice of its batch: one view and one call, where single frames would need several.
    """
    runs: list[tuple[T, range]] = []
    for source, index in positions:
        if runs and runs[-1][0] is source and runs[-1][1].stop == index:
            runs[-1] = (source, range(runs[-1][1].start, index + 1))
        else:
            runs.append((source, range(index, index + 1)))
    return runs
