"""Order of the calls of both networks: frames and persons of several groups go through them in full batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from posebatch.core.frames import Detections, FramePoses, FrameRecord
from posebatch.core.images import FrameBatch
from posebatch.core.settings import EstimatorSettings
from posebatch.core.similarity import oks_nms, rescore
from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.models.networks.pixels import Pixels
from posebatch.pose.following import FollowedPersons, follow, joint_confidence, needs_redetection
from posebatch.pose.pixels import JoinedPixels


class Networks(Protocol):
    """Both networks, as the batcher calls them: `posebatch.pose.estimator.PoseEstimator`."""

    settings: EstimatorSettings

    @property
    def detector_batch(self) -> int:
        """Most frames of one call of `detect`."""
        ...

    @property
    def pose_batch(self) -> int:
        """Most crops of one call of `keypoints`."""
        ...

    @property
    def held_image_bytes(self) -> int:
        """Frames whose persons are not known yet may take this much memory, and one batch more."""
        ...

    def to_device(self, batch: FrameBatch) -> Pixels:
        """A batch's frames where the networks are."""
        ...

    def detect(self, pixels: Pixels) -> list[Detections]:
        """The persons in each frame."""
        ...

    def regions(self, bbox_xyxy: NDArray[np.float32]) -> NDArray[np.float64]:
        """Crop regions of boxes (n, 4): centre x, y, width, height in the frame (n, 4)."""
        ...

    def crops(self, pixels: Pixels, numbers: Sequence[int], regions: NDArray[np.float64]) -> torch.Tensor:
        """Crops (n, 3, h, w) of the regions (n, 4) of the frames with these numbers."""
        ...

    def keypoints(self, crops: Sequence[torch.Tensor], regions: NDArray[np.float64]) -> NDArray[np.float32]:
        """Joints (n, 17, 3) in the frame, from the crops of regions (n, 4)."""
        ...


@dataclass(eq=False)
class _Images:
    """The decoded frames of one batch, in memory until the persons of all of them are known."""

    pixels: Pixels
    size_bytes: int
    awaited: int
    """Frames whose persons are not known yet."""


@dataclass(eq=False)
class _Frame:
    """A frame on its way."""

    record: FrameRecord
    images: _Images | None
    """None when it could not be decoded, and once its persons are known."""
    number: int
    """Position among the images."""
    size_wh: tuple[int, int]
    detections: Detections | None = None
    """The boxes that are looked into."""
    followed: FollowedPersons | None = None
    """What they are when the frame before gave them, and not the detector."""
    regions: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    """(persons, 4) what is cropped for each: centre x, y, width, height in the frame."""
    keypoints: list[NDArray[np.float32]] = field(default_factory=list)
    """(17, 3) for each person so far, in the order of ``detections``."""
    poses: FramePoses | None = None
    """The persons, once they are known."""
    confidences: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """(persons,) of each in ``poses``, at their detection."""
    after: _Frame | None = None
    """The next frame of the group, which waits for this one."""


@dataclass(frozen=True)
class _Crop:
    """One person on the way to the pose network."""

    frame: _Frame
    region: NDArray[np.float64]
    """(4,) centre x, y, width, height in the frame."""
    pixels: torch.Tensor
    """(3, h, w) float32, 0..255."""


class FrameBatcher:
    """The frames of one `PoseEstimator.estimate`, and what waits for which network.

    In a group each frame waits for the one before it, but groups do not wait for each other: frames are read until
    those under way fill the networks' batches, or memory. With groups of one frame, one batch comes after the other.
    """

    def __init__(self, estimator: Networks, batches: Iterable[FrameBatch]) -> None:
        self._estimator, self._settings = estimator, estimator.settings
        self._batches, self._all_read = iter(batches), False
        self._in_order: deque[_Frame] = deque()  # read, and not given on yet
        self._last: _Frame | None = None
        self._to_detect: deque[_Frame] = deque()
        self._crops: deque[_Crop] = deque()
        self._held_bytes = 0

    def __iter__(self) -> Iterator[FramePoses]:
        while self._step():
            while self._in_order and (poses := self._in_order[0].poses) is not None:
                self._in_order.popleft()
                yield poses

    def _step(self) -> bool:
        """Do what fills a batch, or else what comes nearest; False when nothing is left to do."""
        waiting, persons = len(self._to_detect), len(self._crops)
        frames_in_batch, persons_in_batch = self._estimator.detector_batch, self._estimator.pose_batch
        if persons >= persons_in_batch:
            self._infer(persons_in_batch)
        elif waiting >= frames_in_batch:
            self._detect(frames_in_batch)
        elif not self._all_read and self._held_bytes < self._estimator.held_image_bytes:
            self._read()
        elif not waiting and not persons:
            return False
        elif persons * frames_in_batch >= waiting * persons_in_batch:
            self._infer(persons)
        else:
            self._detect(waiting)
        return True

    def _read(self) -> None:
        batch = next(self._batches, None)
        if batch is None:
            self._all_read = True
            return
        pixels = self._estimator.to_device(batch)
        images = _Images(pixels, batch.images.nbytes, len(pixels))
        self._held_bytes += images.size_bytes
        numbers = iter(range(len(pixels)))
        for record in batch.records:
            frame = _Frame(record, None, 0, pixels.size_wh)
            if not batch.lead_in:
                self._in_order.append(frame)
            if record.status != "ok":
                frame.poses = FramePoses.empty(record)
                continue
            frame.images, frame.number = images, next(numbers)
            before, self._last = self._last, frame
            if before is None or not self._in_one_group(before, frame):
                self._to_detect.append(frame)
            elif before.poses is None:
                before.after = frame
            else:
                self._cut([self._placed(frame, before)])

    def _in_one_group(self, before: _Frame, frame: _Frame) -> bool:
        groups = {one.record.frame_index // self._settings.detect_every for one in (before, frame)}
        return len(groups) == 1 and before.size_wh == frame.size_wh

    def _detect(self, most: int) -> None:
        """Run the detector on frames of one size, those that have waited longest."""
        size = self._to_detect[0].size_wh
        frames = [frame for frame in self._to_detect if frame.size_wh == size][:most]
        self._to_detect = deque(frame for frame in self._to_detect if frame not in frames)
        for frame, detections in zip(frames, self._estimator.detect(_pixels_of(frames)), strict=True):
            frame.detections, frame.followed = detections, None
            frame.regions = self._estimator.regions(detections.bbox_xyxy)
        self._cut(frames)

    def _placed(self, frame: _Frame, before: _Frame) -> _Frame:
        """A frame with the boxes that the frame before it gives."""
        assert before.poses is not None
        frame.followed = follow(before.poses, before.confidences, frame.size_wh, self._settings.kpt_thr)
        frame.detections = frame.followed.detections
        frame.regions = self._estimator.regions(frame.detections.bbox_xyxy)
        return frame

    def _cut(self, frames: Iterable[_Frame]) -> None:
        """Crop the persons of frames whose boxes are known. A frame without any is done, and the next one begins."""
        begun, peopled = deque(frames), []
        while begun:
            frame = begun.popleft()
            if len(frame.regions):
                peopled.append(frame)
            else:
                begun.extend(self._settled(frame))
        if not peopled:
            return
        owners = [(number, frame, region) for number, frame in enumerate(peopled) for region in frame.regions]
        numbers, persons, regions = zip(*owners, strict=True)
        crops = self._estimator.crops(_pixels_of(peopled), numbers, np.stack(regions))
        self._crops.extend(_Crop(*one) for one in zip(persons, regions, crops, strict=True))

    def _infer(self, most: int) -> None:
        """Run the pose network on the persons that have waited longest; frames that are complete with them are done."""
        crops = [self._crops.popleft() for _ in range(most)]
        found = self._estimator.keypoints([crop.pixels for crop in crops], np.stack([crop.region for crop in crops]))
        for crop, keypoints in zip(crops, found, strict=True):
            crop.frame.keypoints.append(keypoints)
        owners = [frame for frame, _ in groupby(crop.frame for crop in crops)]
        begun = [
            after for frame in owners if len(frame.keypoints) == len(frame.regions) for after in self._settled(frame)
        ]
        self._cut(begun)

    def _settled(self, frame: _Frame) -> list[_Frame]:
        """Decide on a frame whose persons' keypoints are there: done, or to be detected after all.

        Gives the frame of the group that begins with this one's end, if it has been read.
        """
        assert frame.detections is not None
        assert frame.images is not None
        keypoints = np.array(frame.keypoints, np.float32).reshape(-1, NUM_KEYPOINTS, 3)
        frame.keypoints = []
        if frame.followed is not None and needs_redetection(keypoints, frame.followed):
            self._to_detect.append(frame)
            return []
        frame.poses, rank = _ranked(frame.record, frame.detections, frame.regions, keypoints, self._settings)
        confidences = joint_confidence(keypoints) if frame.followed is None else frame.followed.confidences
        frame.confidences = confidences[rank]
        frame.images.awaited -= 1
        if not frame.images.awaited:
            self._held_bytes -= frame.images.size_bytes
        frame.images = None
        after, frame.after = frame.after, None
        return [] if after is None else [self._placed(after, frame)]


def _pixels_of(frames: Sequence[_Frame]) -> Pixels:
    """Frames of one batch or of several together."""
    parts: list[Pixels] = []
    for (images, first), run in groupby(enumerate(frames), lambda at: (at[1].images, at[1].number - at[0])):
        assert images is not None
        numbers = [first + place for place, _ in run]
        parts.append(images.pixels[numbers[0] : numbers[-1] + 1])
    return parts[0] if len(parts) == 1 else JoinedPixels(parts)


def _ranked(
    record: FrameRecord,
    detections: Detections,
    regions: NDArray[np.float64],
    keypoints: NDArray[np.float32],
    settings: EstimatorSettings,
) -> tuple[FramePoses, NDArray[np.intp]]:
    """A frame's persons by pose score, without those that are a better one over again, and which boxes were theirs."""
    pose_scores = rescore(detections.scores, keypoints[:, :, 2], settings.kpt_thr)
    areas = regions[:, 2:].prod(axis=1)
    rank = oks_nms(keypoints[:, :, :2], pose_scores, areas, settings.oks_nms_thr)
    boxes, box_scores = detections.bbox_xyxy[rank], detections.scores[rank]
    poses = FramePoses(record, boxes, box_scores, pose_scores[rank], keypoints[rank], detections.left_out)
    return poses, rank
