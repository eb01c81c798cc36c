"""Persons that different settings give on the same videos, compared with those of reference settings."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from posebatch.core.frames import Detections, FramePoses
from posebatch.core.images import FrameBatch
from posebatch.core.settings import SamplingSettings, Settings, settings_from
from posebatch.core.text_table import text_table
from posebatch.core.videos import Segment
from posebatch.evaluation.agreement import NOTICEABLE_PX, Agreement, compare
from posebatch.evaluation.report import number_text, plain_values
from posebatch.models.networks.pixels import Pixels
from posebatch.pose.estimator import PoseEstimator
from posebatch.pose.stage_clock import StageClock
from posebatch.video.frame_images import RGB, FrameFormat
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder

PLANES: Final = "planes"
"""Label of the run whose frames stay in the decoder's planes."""


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


@dataclass(frozen=True)
class Comparison:
    """One setting against the reference."""

    setting: str
    persons: int
    detected: float
    """Share of the frames on which the detector ran, 0..1."""
    frames_per_second: float
    speed: float
    """Relative to the reference."""
    agreement: Agreement


class CountingDetector:
    """A detector that counts its frames."""

    def __init__(self, detector: Any) -> None:
        self.record, self.batch_size, self._detector, self.frames = detector.record, detector.batch_size, detector, 0

    def detect(self, frames: Pixels) -> list[Detections]:
        """The persons of each frame."""
        self.frames += len(frames)
        detections: list[Detections] = self._detector.detect(frames)
        return detections


def variants(values: Mapping[str, Sequence[Any]]) -> dict[str, Settings]:
    """Settings by label. The first are the reference, made of the first values; each other changes one value of it."""
    first = {name: given[0] for name, given in values.items()}
    reference = " ".join(f"{name}={given[0]}" for name, given in values.items() if len(given) > 1)
    by_label = {reference or "rgb": first}
    for name, given in values.items():
        by_label |= {f"{name}={value}": {**first, name: value} for value in given[1:]}
    return {label: settings_from(flat, "command line") for label, flat in by_label.items()}


def run_setting(
    label: str,
    settings: Settings,
    videos: Iterable[Path],
    stride: int,
    most_frames: int | None,
    frame_format: FrameFormat = RGB,
) -> Iterator[SettingRun]:
    """Process each video in turn by one estimator. ``most_frames`` limits the frames of each video; None is all.

    Raises `VideoError`, `SettingsError` and `WeightsError`.
    """
    estimator = PoseEstimator.load(settings.estimator, settings.execution.device, settings.execution.engine)
    estimator.detector = counting = CountingDetector(estimator.detector)
    for video in videos:
        clock, frames_before = StageClock(), counting.frames
        with video.open("rb") as file:
            info = probe(file, str(video), math.inf).info
            decoder = SegmentDecoder(
                file,
                str(video),
                Segment(),
                info,
                DecodeOptions(
                    sampling=SamplingSettings(stride=stride),
                    batch_frames=estimator.batch_frames,
                    frame_format=frame_format,
                ),
            )
            poses = tuple(estimator.estimate(_take_frames(decoder, most_frames), clock))
        seconds = clock.detect_seconds + clock.pose_seconds
        print(f"{label}: {video.name}, {len(poses)} frames in {seconds:.1f} s", file=sys.stderr, flush=True)
        yield SettingRun(poses[:most_frames], len(poses), counting.frames - frames_before, seconds)


def compare_runs(runs: Mapping[str, SettingRun], kpt_thr: float) -> list[Comparison]:
    """Compare each run with the first, and the first with itself."""
    reference = next(iter(runs.values()))
    return [
        Comparison(
            label,
            sum(map(len, run.poses)),
            run.detected / max(run.frames, 1),
            run.frames_per_second,
            run.frames_per_second / reference.frames_per_second,
            compare(reference.poses, run.poses, kpt_thr),
        )
        for label, run in runs.items()
    ]


def comparison_text(comparisons: Sequence[Comparison]) -> str:
    """A table for a terminal. Its first line is the reference."""
    heads = ["setting", "persons", "kept", "added", "AP", "AR", "median px", "p95 px", "p99 px"]
    heads += [f"> {NOTICEABLE_PX:g} px", "median height", "p95 height", "detected", "frames/s", "speed"]
    rows = []
    for comparison in comparisons:
        agreement, pixels, heights = comparison.agreement, comparison.agreement.pixels, comparison.agreement.heights
        known = max(agreement.reference_persons, 1)
        rows.append(
            [
                comparison.setting,
                str(comparison.persons),
                *(number_text(count / known, 3) for count in (agreement.kept, agreement.added)),
                *(number_text(value, 3) for value in (agreement.ap, agreement.ar)),
                *(number_text(value, 3) for value in (pixels.median, pixels.p95, pixels.p99)),
                number_text(agreement.noticeable, 3),
                *(number_text(100 * value, 2, "%") for value in (heights.median, heights.p95)),
                number_text(comparison.detected, 3),
                number_text(comparison.frames_per_second, 1),
                number_text(comparison.speed, 2),
            ]
        )
    return f"{comparisons[0].agreement.frames} frames\n{text_table(heads, rows)}"


def comparison_json(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """The same as plain values. A figure that could not be measured is None."""
    return [plain_values(asdict(comparison)) for comparison in comparisons]


def _take_frames(batches: Iterable[FrameBatch], most_frames: int | None) -> Iterator[FrameBatch]:
    """Batches until they hold ``most_frames`` frames; all batches for None."""
    taken = 0
    for batch in batches:
        yield batch
        taken += len(batch.records)
        if most_frames is not None and taken >= most_frames:
            return
