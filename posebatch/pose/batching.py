"""The order in which both networks run: full batches of frames and persons from several groups of frames."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from posebatch.core.frames import Detections, FramePoses, FrameRecord
from posebatch.core.images import FrameBatch
from posebatch.core.settings import EstimatorSettings
from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.models.networks.pixels import Pixels
from posebatch.pose.following import FollowedPersons, follow
from posebatch.pose.frame_states import Finished, Frame, FrameGroup, HeldImages, Located, Posed, finish, pixels_of
from posebatch.pose.recovery import carried_persons, merge_persons, missed_persons


class Networks(Protocol):
    """Both networks, as the batcher calls them; `posebatch.pose.estimator.PoseEstimator` is the implementation."""

    settings: EstimatorSettings

    @property
    def detector_batch(self) -> int:
        """Most frames in one call of `detect`."""
        ...

    @property
    def pose_batch(self) -> int:
        """Most crops in one call of `keypoints`."""
        ...

    @property
    def held_image_bytes(self) -> int:
        """Memory for the images of unfinished frames, bytes. Reading stops above it, so one batch more can be held."""
        ...

    def to_device(self, batch: FrameBatch) -> Pixels:
        """The images of a batch on the networks' device."""
        ...

    def detect(self, pixels: Pixels) -> list[Detections]:
        """The persons in each frame."""
        ...

    def grey(self, pixels: Pixels) -> NDArray[np.uint8] | None:
        """Small pictures (n, h, w) of frames for `carry`; None without ``recover_flow``."""
        ...

    def carry(
        self,
        points: NDArray[np.float32],
        before: NDArray[np.uint8],
        after: NDArray[np.uint8],
        size_wh: tuple[int, int],
    ) -> NDArray[np.float64]:
        """Where optical flow carries points (..., 2) of a frame."""
        ...

    def regions(self, bbox_xyxy: NDArray[np.float32]) -> NDArray[np.float64]:
        """Crop regions of boxes: (n, 4) x1, y1, x2, y2 -> (n, 4) centre x, y, width, height in the frame."""
        ...

    def crops(self, pixels: Pixels, numbers: Sequence[int], regions: NDArray[np.float64]) -> torch.Tensor:
        """Crops (n, 3, h, w): crop i shows ``regions[i]`` of frame ``numbers[i]``."""
        ...

    def keypoints(self, crops: Sequence[torch.Tensor], regions: NDArray[np.float64]) -> NDArray[np.float32]:
        """Keypoints (n, 17, 3) in the frame, from the crops of regions (n, 4)."""
        ...


@dataclass(frozen=True)
class _Crop:
    """One person, ready for the pose network."""

    region: NDArray[np.float64]
    """(4,) centre x, y, width, height in the frame."""
    pixels: torch.Tensor
    """(3, h, w) float32, 0..255."""


class FrameBatcher:
    """Runs both networks in full batches, and gives the persons of each frame in the order of the frames.

    Within a group each frame waits for the one before it. Groups do not wait for each other: the batcher reads frames
    until the groups under way fill a batch, or until their images fill the memory.
    """

    def __init__(self, networks: Networks, batches: Iterable[FrameBatch]) -> None:
        self._networks, self._settings = networks, networks.settings
        self._batches, self._all_read = iter(batches), False
        self._newest_group = FrameGroup((-1, -1, (0, 0)))  # no frame belongs to it
        self._newest_detection = -1  # frame_index // detect_every of the newest frame
        self._to_detect: deque[Frame] = deque()
        self._to_pose: deque[Located] = deque()
        # The persons of the frames in _to_pose, in order: the keypoints of the first ones, the crops of the others.
        self._keypoints: deque[NDArray[np.float32]] = deque()
        self._crops: deque[_Crop] = deque()
        self._unfinished: Counter[HeldImages] = Counter()  # frames of each batch
        self._output_indices = itertools.count()
        self._results: dict[int, FramePoses] = {}  # by output index

    def __iter__(self) -> Iterator[FramePoses]:
        next_index = 0
        while self.run_fullest_batch():
            while next_index in self._results:
                yield self._results.pop(next_index)
                next_index += 1

    def run_fullest_batch(self) -> bool:
        """Run a network that has a full batch; otherwise read frames; otherwise run the fuller one.

        False when nothing is left to do.
        """
        frames, persons = len(self._to_detect), len(self._crops)
        most_frames, most_persons = self._networks.detector_batch, self._networks.pose_batch
        if persons >= most_persons:
            self._infer(most_persons)
        elif frames >= most_frames:
            self._detect(most_frames)
        elif not self._all_read and self._held_bytes() < self._networks.held_image_bytes:
            self._read()
        elif not frames and not persons:
            return False
        elif persons * most_frames >= frames * most_persons:
            self._infer(persons)
        else:
            self._detect(frames)
        return True

    def _held_bytes(self) -> int:
        return sum(images.size_bytes for images in self._unfinished)

    def _read(self) -> None:
        batch = next(self._batches, None)
        if batch is None:
            self._all_read = True
            return
        pixels = self._networks.to_device(batch)
        images = HeldImages(pixels, batch.images.nbytes, self._networks.grey(pixels))
        numbers = itertools.count()
        for record in batch.records:
            output_index = None if batch.lead_in else next(self._output_indices)
            if record.status == "ok":
                self._join_group(batch.segment, record, images, next(numbers), output_index)
            elif output_index is not None:
                self._results[output_index] = FramePoses.empty(record)

    def _join_group(
        self, segment: int, record: FrameRecord, images: HeldImages, number: int, output_index: int | None
    ) -> None:
        """Queue a frame for the detector if it is due, and behind the frame before it unless it starts a group."""
        key = (segment, record.frame_index // self._settings.group_frames, images.pixels.size_wh)
        starts_group = key != self._newest_group.key
        if starts_group:
            self._newest_group = FrameGroup(key)
        group = self._newest_group
        detection = record.frame_index // self._settings.detect_every
        is_detected = starts_group or detection != self._newest_detection
        self._newest_detection = detection
        frame = Frame(record, images, number, group, output_index, is_detected)
        self._unfinished[images] += 1
        if is_detected:
            self._to_detect.append(frame)
        if not starts_group:
            group.waiting.append(frame)
            self._queue_persons(self._next_located(group))

    def _detect(self, count: int) -> None:
        """Run the detector on up to ``count`` frames of one size, the oldest ones."""
        size_wh = self._to_detect[0].size_wh
        frames = [frame for frame in self._to_detect if frame.size_wh == size_wh][:count]
        self._to_detect = deque(frame for frame in self._to_detect if frame not in frames)
        detections = self._networks.detect(pixels_of(frames))
        located: list[Located] = []
        for frame, persons in zip(frames, detections, strict=True):
            if frame in frame.group.waiting:
                frame.group.detected[frame] = persons
                located += self._next_located(frame.group)
            else:
                located.append(self._locate(frame, persons))
        self._queue_persons(located)

    def _infer(self, count: int) -> None:
        """Run the pose network on the ``count`` oldest persons, and go on with the frames that are complete."""
        crops = [self._crops.popleft() for _ in range(count)]
        regions = np.stack([crop.region for crop in crops])
        self._keypoints.extend(self._networks.keypoints([crop.pixels for crop in crops], regions))
        next_frames: list[Located] = []
        while self._to_pose and len(self._keypoints) >= len(self._to_pose[0].detections):
            located = self._to_pose.popleft()
            keypoints = np.stack([self._keypoints.popleft() for _ in located.regions])
            next_frames += self._finish_or_redetect(Posed(located, keypoints))
        self._queue_persons(next_frames)

    def _locate(self, frame: Frame, detections: Detections, followed: FollowedPersons | None = None) -> Located:
        return Located(frame, detections, followed, self._networks.regions(detections.bbox_xyxy))

    def _queue_persons(self, frames: Iterable[Located]) -> None:
        """Crop the persons of frames for the pose network. A frame without persons is finished, and the next begins."""
        undecided, with_persons = deque(frames), []
        while undecided:
            located = undecided.popleft()
            if len(located.detections):
                with_persons.append(located)
            else:
                nobody = np.zeros((0, NUM_KEYPOINTS, 3), np.float32)
                undecided.extend(self._finish_or_redetect(Posed(located, nobody)))
        if not with_persons:
            return
        pixels = pixels_of([located.frame for located in with_persons])
        numbers = [number for number, located in enumerate(with_persons) for _ in located.regions]
        regions = np.concatenate([located.regions for located in with_persons])
        crops = self._networks.crops(pixels, numbers, regions)
        self._crops.extend(_Crop(*pair) for pair in zip(regions, crops, strict=True))
        self._to_pose.extend(with_persons)

    def _finish_or_redetect(self, posed: Posed) -> list[Located]:
        """Give a frame's result and return the next frame of its group, if there is one; or queue it for detection."""
        frame = posed.located.frame
        finished = finish(posed, self._settings)
        if finished is None:
            self._to_detect.append(frame)
            return []
        self._unfinished[frame.images] -= 1
        if not self._unfinished[frame.images]:
            del self._unfinished[frame.images]
        if frame.output_index is not None:
            self._results[frame.output_index] = finished.poses
        frame.group.last = finished
        return self._next_located(frame.group)

    def _next_located(self, group: FrameGroup) -> list[Located]:
        """The next frame of a group with its expected persons; nothing while the frame before is unfinished, or the
        detector is due."""
        if group.last is None or not group.waiting:
            return []
        frame = group.waiting[0]
        if frame.is_detected and frame not in group.detected:
            return []
        group.waiting.popleft()
        before, group.last = group.last, None
        if frame.is_detected:
            return [self._recover(frame, group.detected.pop(frame), before)]
        followed = follow(before.poses, before.confidences, frame.size_wh, self._settings.kpt_thr)
        return [self._locate(frame, followed.detections, followed)]

    def _recover(self, frame: Frame, detections: Detections, before: Finished) -> Located:
        """A frame with its detected persons, and those of the frame before whom the detector missed."""
        settings, poses = self._settings, before.poses
        missed = missed_persons(poses, detections, settings.nms_thr)
        if not len(missed):
            return self._locate(frame, detections)
        assert before.grey is not None
        assert frame.grey is not None
        joints = self._networks.carry(poses.keypoints[missed, :, :2], before.grey, frame.grey, frame.size_wh)
        carried = carried_persons(poses.taken(missed), before.confidences[missed], joints, frame.size_wh, settings)
        merged = merge_persons(detections, carried, settings.nms_thr, settings.max_persons)
        regions = self._networks.regions(merged.detections.bbox_xyxy)
        return Located(frame, merged.detections, None, regions, merged.confidences)
