"""Frames to persons: detect, crop, infer in batches of constant size across frames, decode, un-crop.

Usable alone, without Ray or an object store::

    estimator = PoseEstimator.load(EstimatorSettings())
    for poses in estimator.estimate(batches):   # FrameBatch in, FramePoses out, in the same order
        ...
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from numpy.typing import NDArray

from posebatch.decoding import DECODINGS
from posebatch.errors import SettingsError
from posebatch.geometry import GridAlignment, apply_affine, crop_regions, grid_to_frame
from posebatch.heatmaps import decode_heatmaps
from posebatch.models.detector import DetectorSettings, PersonDetector, load_detector
from posebatch.models.pose import PoseNetwork, load_pose_network
from posebatch.scoring import oks_nms, rescore
from posebatch.settings import EstimatorSettings
from posebatch.skeleton import NUM_KEYPOINTS
from posebatch.types import Detections, FrameBatch, FramePoses, FrameRecord

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(device: str) -> str:
    """``cpu`` or ``cuda`` for a device setting. Raises `SettingsError` when CUDA is asked for and not there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("--device cuda: torch sees no CUDA device on this machine; use --device auto or cpu")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def resolve_precision(precision: str, device: str) -> torch.dtype:
    """The number format for a precision setting: bf16 where the processor is made for it, else fp32.

    On processors without AMX bf16 is several times slower than fp32.
    """
    if precision != "auto":
        return _DTYPES[precision]
    fast_bf16 = device == "cuda" or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast_bf16 else torch.float32


@dataclass
class _Pending:
    """A frame whose persons are not all through the pose network yet."""

    record: FrameRecord
    detections: Detections | None
    """None for a frame that could not be decoded."""
    regions: NDArray[np.float64]
    """(persons, 4) what is cropped for each: centre x, y, width, height in the frame."""
    keypoints: list[NDArray[np.float32]] = field(default_factory=list)
    """(17, 3) for each person so far, in the order of ``detections``."""

    @property
    def complete(self) -> bool:
        return self.detections is None or len(self.keypoints) == len(self.detections)


@dataclass(frozen=True)
class _Crop:
    """One person on the way to the pose network."""

    frame: _Pending
    region: NDArray[np.float64]
    """(4,) centre x, y, width, height in the frame."""
    pixels: torch.Tensor
    """(3, h, w) float32, 0..255."""


class PoseEstimator:
    """A person detector and a pose network that work on batches of frames."""

    def __init__(self, detector: PersonDetector, pose: PoseNetwork, settings: EstimatorSettings, device: str) -> None:
        self.detector, self.pose, self.settings, self.device = detector, pose, settings, device
        self._decoding = DECODINGS[settings.decoding]
        self._alignment = self._decoding.alignment or pose.record.grid_alignment
        self.detect_seconds = 0.0
        self.pose_seconds = 0.0

    @classmethod
    def load(cls, settings: EstimatorSettings, device: str = "auto") -> PoseEstimator:
        """Load both networks. Raises `WeightsError` or `SettingsError`."""
        device = resolve_device(device)
        precision = resolve_precision(settings.precision, device)
        detector = load_detector(
            settings.detector_name,
            DetectorSettings(settings.bbox_thr, settings.nms_thr, settings.max_persons, device, precision),
        )
        return cls(detector, load_pose_network(settings.pose_name, device, precision), settings, device)

    @property
    def batch_frames(self) -> int:
        """Most frames that a `FrameBatch` may hold."""
        return self.detector.batch_size

    def estimate(self, batches: Iterable[FrameBatch]) -> Iterator[FramePoses]:
        """The persons of every frame, in the order of the frames.

        Persons of several frames go through the pose network together. A frame without a detection has no person; a
        frame that could not be decoded has none either. Holds no state from one call to the next.
        """
        pending: deque[_Pending] = deque()
        crops: deque[_Crop] = deque()
        for batch in batches:
            for frame, image in self._detect(batch):
                pending.append(frame)
                crops.extend(self._crop(frame, image))
            while len(crops) >= self.pose.batch_size:
                self._infer([crops.popleft() for _ in range(self.pose.batch_size)])
            yield from self._completed(pending)
        while crops:
            self._infer([crops.popleft() for _ in range(min(len(crops), self.pose.batch_size))])
        yield from self._completed(pending)

    def _detect(self, batch: FrameBatch) -> list[tuple[_Pending, torch.Tensor | None]]:
        started = time.perf_counter()
        images = torch.from_numpy(batch.images).to(self.device)
        found = iter(zip(self.detector.detect(images), images, strict=True) if len(images) else ())
        frames: list[tuple[_Pending, torch.Tensor | None]] = []
        for record in batch.records:
            detections, image = next(found) if record.status == "ok" else (None, None)
            frames.append((_Pending(record, detections, self._regions(detections)), image))
        self.detect_seconds += time.perf_counter() - started
        return frames

    def _crop(self, frame: _Pending, image: torch.Tensor | None) -> list[_Crop]:
        if image is None or not frame.detections:
            return []
        started = time.perf_counter()
        size = self.pose.record.input_size_wh
        crops = [_Crop(frame, region, sample_crop(image, region, size, self._alignment)) for region in frame.regions]
        self.pose_seconds += time.perf_counter() - started
        return crops

    def _regions(self, detections: Detections | None) -> NDArray[np.float64]:
        if detections is None:
            return np.zeros((0, 4))
        width, height = self.pose.record.input_size_wh
        padding = self._decoding.box_padding or self.pose.record.box_padding
        return crop_regions(detections.bbox_xyxy, width / height, padding, self._decoding.box_fit)

    def _infer(self, crops: list[_Crop]) -> None:
        """Run the pose network on one batch and hand each frame the keypoints of its persons."""
        started = time.perf_counter()
        pixels = torch.stack([crop.pixels for crop in crops])
        heatmaps = self.pose.heatmaps(pixels, flip_test=self.settings.flip_test)
        peaks = decode_heatmaps(heatmaps.float().cpu().numpy(), self._decoding.refinement)
        regions = np.stack([crop.region for crop in crops])
        to_frame = grid_to_frame(regions, self.pose.heatmap_size_wh, self._alignment)
        positions = apply_affine(to_frame, peaks[:, :, :2])
        for crop, position, score in zip(crops, positions, peaks[:, :, 2:], strict=True):
            crop.frame.keypoints.append(np.concatenate([position, score], axis=1).astype(np.float32))
        self.pose_seconds += time.perf_counter() - started

    def _completed(self, pending: deque[_Pending]) -> Iterator[FramePoses]:
        while pending and pending[0].complete:
            yield _ranked(pending.popleft(), self.settings)


def sample_crop(
    image: torch.Tensor, region: NDArray[np.float64], size_wh: tuple[int, int], alignment: GridAlignment = "edges"
) -> torch.Tensor:
    """Resample a region of a frame to the network's input: (H, W, 3) uint8 -> (3, h, w) float32, 0..255.

    Bilinear; black outside the frame, as ``cv2.warpAffine`` gives it in SimpleBaseline's code. Only the pixels of the
    region are converted.
    """
    height, width = image.shape[:2]
    affine = grid_to_frame(region[None], size_wh, alignment)[0]
    x = affine[0, 2] + affine[0, 0] * np.arange(size_wh[0])
    y = affine[1, 2] + affine[1, 1] * np.arange(size_wh[1])
    left, right = _span(x, width)
    top, bottom = _span(y, height)
    patch = image[top:bottom, left:right].permute(2, 0, 1)[None].float()
    grid_x = torch.from_numpy(_normalised(x - left, right - left)).to(image.device)
    grid_y = torch.from_numpy(_normalised(y - top, bottom - top)).to(image.device)
    grid = torch.stack(torch.meshgrid(grid_x, grid_y, indexing="xy"), dim=-1)[None]
    return F.grid_sample(patch, grid, mode="bilinear", padding_mode="zeros", align_corners=True)[0]


def _span(positions: NDArray[np.float64], length: int) -> tuple[int, int]:
    """The half-open range of pixels that bilinear sampling at ``positions`` reads, within 0..length, never empty."""
    first = min(max(int(np.floor(positions[0])), 0), length - 1)
    last = min(max(int(np.floor(positions[-1])) + 1, first), length - 1)
    return first, last + 1


def _normalised(positions: NDArray[np.float64], length: int) -> NDArray[np.float32]:
    """Pixel positions as ``grid_sample`` wants them with align_corners: -1 and 1 at the first and last pixel."""
    if length == 1:  # one pixel: inside it at 0, a full pixel away at +-2 as for any other length
        return (2 * positions).astype(np.float32)
    return (2 * positions / (length - 1) - 1).astype(np.float32)


def _ranked(frame: _Pending, settings: EstimatorSettings) -> FramePoses:
    """A frame's persons by pose score, without those that are a better one over again."""
    if not frame.detections:
        return FramePoses.empty(frame.record)
    keypoints = np.stack(frame.keypoints).reshape(-1, NUM_KEYPOINTS, 3)
    pose_scores = rescore(frame.detections.scores, keypoints[:, :, 2], settings.kpt_thr)
    areas = frame.regions[:, 2:].prod(axis=1)
    rank = oks_nms(keypoints[:, :, :2], pose_scores, areas, settings.oks_nms_thr)
    boxes, box_scores = frame.detections.bbox_xyxy, frame.detections.scores
    return FramePoses(frame.record, boxes[rank], box_scores[rank], pose_scores[rank], keypoints[rank])
