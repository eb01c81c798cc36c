"""The same work with the same weights as a plain loop, frame by frame, as a first version would have it.

Eager torch in fp32, without the optimisations of the package: FFmpeg converts frames to RGB, Pillow crops persons.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.figures import Measured, Peer
from benchmarks.network_pairs import Networks
from posebatch.models.networks.person_detector import DetectorSettings, build_torchvision_detector
from posebatch.models.networks.pose_resnet import HEATMAP_STRIDE, build_pose_network
from posebatch.models.networks.ssdlite import build_person_ssd
from posebatch.models.weights.files import load_into, load_weights
from posebatch.models.weights.records import SSDLITE_ARCHITECTURES
from posebatch.pose.crops import apply_affine, crop_regions, grid_to_frame
from posebatch.pose.heatmaps import decode_heatmaps

BBOX_THR = 0.3


PERSON = 1


class PlainNetworks:
    """Both networks as loaded, with plain pre- and postprocessing."""

    def __init__(self, networks: Networks, device: str) -> None:
        detector_record, detector_state = load_weights("detector", networks.detector)
        self._record, pose_state = load_weights("pose", networks.pose)
        if detector_record.architecture in SSDLITE_ARCHITECTURES:
            self._detector: torch.nn.Module = build_person_ssd(detector_record.architecture)
        else:
            self._detector = build_torchvision_detector(detector_record.architecture, DetectorSettings())
        self._pose = build_pose_network(self._record.architecture)
        load_into(self._detector, detector_state, detector_record.name)
        load_into(self._pose, pose_state, self._record.name)
        self._detector.eval().to(device)
        self._pose.eval().to(device)
        self._device = device
        self._mean, self._std = (
            torch.tensor(part, device=device).view(1, 3, 1, 1) for part in (self._record.mean, self._record.std)
        )

    @torch.inference_mode()
    def boxes(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float64]]:
        """Detect the persons of each frame (height, width, 3): boxes (n, 4), x1, y1, x2, y2 from pixel centres."""
        frames = [torch.tensor(image).permute(2, 0, 1).to(self._device).float() / 255 for image in images]
        boxes = []
        for output in self._detector(frames):
            persons = (output["scores"] > BBOX_THR) & (output["labels"] == PERSON)
            boxes.append(output["boxes"][persons].cpu().numpy().astype(np.float64) - 0.5)
        return boxes

    def regions(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """The crop region of each box: (n, 4) centre x, y, width, height."""
        width, height = self._record.input_size_wh
        return crop_regions(boxes, width / height, self._record.box_padding)

    def crop(self, image: NDArray[np.uint8], region: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Crop and resize one person: (h, w, 3)."""
        (a, _, x), (_, d, y) = grid_to_frame(region[None], self._record.input_size_wh)[0]
        affine = (a, 0.0, x + 0.5 - a / 2, 0.0, d, y + 0.5 - d / 2)  # Pillow counts from a pixel's edge
        crop = Image.fromarray(image).transform(
            self._record.input_size_wh, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR
        )
        return np.asarray(crop)

    @torch.inference_mode()
    def keypoints(self, crops: Sequence[NDArray[np.uint8]], regions: NDArray[np.float64]) -> NDArray[np.float64]:
        """The joints in each crop: (n, 17, 3) x, y in the frame, score."""
        images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).to(self._device).float() / 255
        if self._record.channel_order == "BGR":
            images = images.flip(1)
        peaks = decode_heatmaps(self._pose((images - self._mean) / self._std).cpu().numpy())
        width, height = self._record.input_size_wh
        affine = grid_to_frame(regions, (width // HEATMAP_STRIDE, height // HEATMAP_STRIDE))
        return np.concatenate([apply_affine(affine, peaks[:, :, :2]), peaks[:, :, 2:]], axis=2)


def plain_loop(videos: Sequence[Path], networks: Networks, device: str, threads: int, limit: int) -> Peer:
    """Process ``limit`` frames one by one and person by person: batch size 1, all cores on one frame."""
    torch.set_num_threads(threads)
    started = time.perf_counter()
    plain = PlainNetworks(networks, device)
    images = (image for video in videos for image in rgb_frames(video))
    _process_frame(plain, next(images), Clock())  # the first call allocates
    clock, persons, frames = Clock(), 0, 0
    start_s, started = time.perf_counter() - started, time.perf_counter()
    for image in images:
        clock.lap("decode")
        persons += _process_frame(plain, image, clock)
        frames += 1
        if frames == limit:
            break
    measured = Measured(frames, persons, time.perf_counter() - started, start_s)
    return Peer("plain loop", measured, {stage: seconds / frames for stage, seconds in clock.seconds.items()})


class Clock:
    """Seconds of a loop by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to ``stage``."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


def _process_frame(plain: PlainNetworks, image: NDArray[np.uint8], clock: Clock) -> int:
    """Number of persons."""
    boxes = plain.boxes([image])[0]
    clock.lap("detect")
    for region in plain.regions(boxes):
        plain.keypoints([plain.crop(image, region)], region[None])
    clock.lap("pose")
    return len(boxes)


def rgb_frames(video: Path) -> Iterator[NDArray[np.uint8]]:
    """Every frame of a video, (height, width, 3) RGB."""
    with av.open(str(video)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
