"""Run one setting over videos, in this process, and measure what the networks cost."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from posebatch.core.frames import Detections, FramePoses
from posebatch.core.images import FrameBatch
from posebatch.core.redaction import visible
from posebatch.core.settings import SamplingSettings, Settings
from posebatch.core.videos import Segment
from posebatch.models.networks.pixels import Pixels
from posebatch.pose.estimator import PoseEstimator
from posebatch.pose.stage_clock import StageClock
from posebatch.storage.open import open_newest
from posebatch.video.frame_images import RGB, FrameFormat
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder


@dataclass(frozen=True)
class SettingRun:
    """Poses and speed of one setting on one video. ``+`` adds up several videos."""

    poses: tuple[FramePoses, ...]
    frames: int
    """Frames processed. Those beyond the wanted number, which fill the last batch, have no entry in ``poses``."""
    detected: int
    """Frames on which the detector ran."""
    seconds: float
    """In the networks, with cropping and heatmap decoding."""

    def __add__(self, other: SettingRun) -> SettingRun:
        return SettingRun(
            self.poses + other.poses,
            self.frames + other.frames,
            self.detected + other.detected,
            self.seconds + other.seconds,
        )

    @property
    def frames_per_second(self) -> float:
        """Of the networks, decoding left out."""
        return self.frames / max(self.seconds, 1e-9)


class CountingDetector:
    """A detector that counts its frames."""

    def __init__(self, detector: Any) -> None:
        self.record, self.batch_size, self._detector, self.frames = detector.record, detector.batch_size, detector, 0

    def detect(self, frames: Pixels) -> list[Detections]:
        """The persons of each frame."""
        self.frames += len(frames)
        detections: list[Detections] = self._detector.detect(frames)
        return detections


def run_setting(
    label: str,
    settings: Settings,
    videos: Iterable[str],
    stride: int,
    most_frames: int | None,
    frame_format: FrameFormat = RGB,
    endpoint_url: str | None = None,
) -> Iterator[SettingRun]:
    """Process each video in turn by one estimator. ``videos``: paths or ``s3://`` addresses.

    ``most_frames`` limits the frames of each video; None is all. Raises `VideoError`, `StorageError`, `SettingsError`
    and `WeightsError`.
    """
    estimator = PoseEstimator.load(settings.estimator, settings.execution.device, settings.execution.engine)
    is_warm = False
    for video in videos:
        with open_newest(video, endpoint_url) as file:
            info = probe(file, video, math.inf).info
            options = DecodeOptions(
                sampling=SamplingSettings(stride=stride),
                batch_frames=estimator.batch_frames,
                frame_format=frame_format,
            )
            if not is_warm:  # the first batch of a network takes longer, whatever the setting
                is_warm = True
                first = islice(SegmentDecoder(file, video, Segment(), info, options), 1)
                list(estimator.estimate(first))
                file.seek(0)
            yield _run(label, estimator, SegmentDecoder(file, video, Segment(), info, options), most_frames)


def _run(label: str, estimator: PoseEstimator, decoder: SegmentDecoder, most_frames: int | None) -> SettingRun:
    clock, detector = StageClock(), estimator.detector
    estimator.detector = counting = CountingDetector(detector)
    poses = tuple(estimator.estimate(_take_frames(decoder, most_frames), clock))
    estimator.detector = detector
    seconds = clock.detect_seconds + clock.pose_seconds
    name = visible(PurePosixPath(decoder.name).name)
    print(f"{label}: {name}, {len(poses)} frames in {seconds:.1f} s", file=sys.stderr, flush=True)
    return SettingRun(poses[:most_frames], len(poses), counting.frames, seconds)


def _take_frames(batches: Iterable[FrameBatch], most_frames: int | None) -> Iterator[FrameBatch]:
    """Batches until they hold ``most_frames`` frames; all batches for None."""
    taken = 0
    for batch in batches:
        yield batch
        taken += len(batch.records)
        if most_frames is not None and taken >= most_frames:
            return
