"""Frames to persons: detect or follow, crop, run the pose network, decode its heatmaps, map back to the frame.

The estimator works alone, without Ray or an object store::

    estimator = PoseEstimator.load(EstimatorSettings())
    for poses in estimator.estimate(batches):   # FrameBatch in, FramePoses out, in the same order
        ...
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from posebatch.core.extras import need
from posebatch.core.frames import Detections, FramePoses
from posebatch.core.images import FrameBatch
from posebatch.core.settings import EstimatorSettings
from posebatch.models.networks.engines import Placement, choose_placement
from posebatch.models.networks.person_detector import DetectorSettings, PersonDetector
from posebatch.models.networks.pixels import Pixels
from posebatch.models.networks.pose_network import PoseNetwork, load_pose_network
from posebatch.pose.batching import FrameBatcher
from posebatch.pose.crops import apply_affine, crop_regions, grid_to_frame
from posebatch.pose.decoding import DECODINGS
from posebatch.pose.device_heatmaps import find_peaks
from posebatch.pose.flow import carry_points, grey_pictures
from posebatch.pose.score_calibration import calibrate_scores
from posebatch.pose.stage_clock import Stage, StageClock
from posebatch.pose.tiled_detector import load_tiled
from posebatch.pose.uploads import to_device

HELD_IMAGE_BYTES: Final[Mapping[str, int]] = {"cpu": 256 << 20, "cuda": 2 << 30}
"""Memory for the images of unfinished frames, bytes; reading stops above it. The batches of a GPU are larger, so it
needs more groups of frames under way."""


class PoseEstimator:
    """A person detector and a pose network, which run on batches of frames."""

    def __init__(
        self, detector: PersonDetector, pose: PoseNetwork, settings: EstimatorSettings, placement: Placement
    ) -> None:
        self.detector, self.pose, self.settings, self.placement = detector, pose, settings, placement
        self._decoding = DECODINGS[settings.decoding]
        self._alignment = self._decoding.alignment or pose.record.grid_alignment
        self._clock = StageClock()

    @classmethod
    def load(cls, settings: EstimatorSettings, device: str = "auto", engine: str = "auto") -> PoseEstimator:
        """Load both networks. ``device`` and ``engine`` are those of `choose_placement`.

        Raises `WeightsError` or `SettingsError`, and `UsageError` if a library of the settings is missing.
        """
        if settings.recover_flow:
            need("cv2")
        placement = choose_placement(device, settings.precision, engine)
        detector = load_person_detector(settings, placement)
        return cls(detector, load_pose_network(settings.pose_name, placement), settings, placement)

    @property
    def detector_batch(self) -> int:
        """Most frames in one call of `detect`."""
        return self.detector.batch_size

    @property
    def pose_batch(self) -> int:
        """Most crops in one call of `keypoints`."""
        return self.pose.batch_size

    @property
    def held_image_bytes(self) -> int:
        """Memory for the images of unfinished frames, bytes. Reading stops above it, so one batch more can be held."""
        return HELD_IMAGE_BYTES[self.placement.device]

    @property
    def batch_frames(self) -> int:
        """Most frames in a `FrameBatch`."""
        return self.detector.batch_size

    def estimate(self, batches: Iterable[FrameBatch], clock: StageClock | None = None) -> Iterator[FramePoses]:
        """The persons of every frame except lead-in frames, in the order of the frames.

        Frames with the same ``frame_index // settings.group_frames`` and the same size form a group. The detector runs
        on the first frame for each ``frame_index // detect_every``; `posebatch.pose.following` follows its persons
        through the others. With ``recover_flow``, `posebatch.pose.recovery` adds the persons of the frame before whom
        the detector misses. A frame that could not be decoded has no persons, and following skips it.

        Frames and persons of several groups share batches, but the result of a group depends on its frames alone. The
        estimator keeps no state between calls. The seconds of each stage are added to ``clock``.
        """
        timed = copy(self)  # the same networks with a clock of this call alone
        timed._clock = clock or StageClock()
        return iter(FrameBatcher(timed, batches))

    def detect(self, pixels: Pixels) -> list[Detections]:
        """The persons in frames of one size, at most `detector_batch` frames."""
        with self._timed("detect_seconds"):
            return self.detector.detect(pixels)

    def grey(self, pixels: Pixels) -> NDArray[np.uint8] | None:
        """Small pictures (n, h, w) of frames for `carry`; None without ``recover_flow``."""
        if not self.settings.recover_flow:
            return None
        with self._timed("detect_seconds"):
            return grey_pictures(pixels)

    def carry(
        self,
        points: NDArray[np.float32],
        before: NDArray[np.uint8],
        after: NDArray[np.uint8],
        size_wh: tuple[int, int],
    ) -> NDArray[np.float64]:
        """Where optical flow carries points (..., 2) of a frame; see `carry_points`."""
        with self._timed("detect_seconds"):
            return carry_points(points, before, after, size_wh)

    def regions(self, bbox_xyxy: NDArray[np.float32]) -> NDArray[np.float64]:
        """Crop regions of boxes: (n, 4) x1, y1, x2, y2 -> (n, 4) centre x, y, width, height in the frame."""
        width, height = self.pose.record.input_size_wh
        padding = self._decoding.box_padding or self.pose.record.box_padding
        return crop_regions(bbox_xyxy, width / height, padding, self._decoding.box_fit)

    def crops(self, pixels: Pixels, numbers: Sequence[int], regions: NDArray[np.float64]) -> torch.Tensor:
        """Input of the pose network (n, 3, h, w): crop i shows ``regions[i]`` of frame ``numbers[i]``."""
        with self._timed("pose_seconds"):
            return pixels.crops(numbers, regions, self.pose.record.input_size_wh, self._alignment)

    def keypoints(self, crops: Sequence[torch.Tensor], regions: NDArray[np.float64]) -> NDArray[np.float32]:
        """Keypoints (n, 17, 3) in the frame, from the crops of regions (n, 4), at most `pose_batch` crops."""
        with self._timed("pose_seconds"):
            heatmaps = self.heatmaps(torch.stack(list(crops)))
            peaks = find_peaks(heatmaps, self._decoding.refinement)
            positions = apply_affine(self.heatmaps_to_frame(regions), peaks[:, :, :2])
            scores = calibrate_scores(peaks[:, :, 2:], self.pose.record.score_calibration)
            return np.concatenate([positions, scores], axis=2).astype(np.float32)

    def heatmaps(self, crops: torch.Tensor) -> torch.Tensor:
        """Heatmaps (n, 17, h/4, w/4) of crops (n, 3, h, w), at most `pose_batch` crops."""
        return self.pose.heatmaps(crops, flip_test=self.settings.flip_test)

    def heatmaps_to_frame(self, regions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Affine maps (n, 2, 3) from pixels of the heatmaps of regions (n, 4) to pixels of the frame."""
        return grid_to_frame(regions, self.pose.heatmap_size_wh, self._alignment)

    def to_device(self, batch: FrameBatch) -> Pixels:
        """Move the images of a batch to the device of the networks."""
        with self._timed("detect_seconds"):
            return to_device(batch.images, self.placement.device)

    @contextmanager
    def _timed(self, stage: Stage) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._clock.add(stage, time.perf_counter() - started)


def load_person_detector(settings: EstimatorSettings, placement: Placement) -> PersonDetector:
    """Load the detector of the settings, with tiles if they ask for them. Raises `WeightsError` or `SettingsError`."""
    detector = DetectorSettings(settings.bbox_thr, settings.nms_thr, settings.max_persons, placement)
    return load_tiled(settings.detector_name, detector, settings.grid, settings.detect_size)
