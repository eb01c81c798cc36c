"""What settings change on real videos: the persons that each gives, against those of a reference, on the same frames.

    python jobs/compare_settings.py VIDEO... --detect-every 1 2 5 10
    python jobs/compare_settings.py VIDEO... --precision fp32 bf16 --frames 100 --json out/precision.json
    python jobs/compare_settings.py VIDEO... --planes

Every option takes several values. The first ones are the reference; each other value is compared with it alone, all
other options as in the reference. With --planes, frames that stay as the decoder's planes, as a GPU's networks get
them, are compared with frames that are converted to RGB first. Speed is that of the networks, decoding left out; its
ratio is of this run.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import operator
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from posebatch.cli.entry import run_script
from posebatch.core.errors import InputError, OutputError, UsageError
from posebatch.core.frames import Detections, FramePoses
from posebatch.core.images import FrameBatch
from posebatch.core.options import Option
from posebatch.core.settings import SamplingSettings, Settings, options, settings_from
from posebatch.core.videos import Segment
from posebatch.evaluation.agreement import NOTICEABLE_PX, Agreement, compare
from posebatch.evaluation.report import plain_values, table_text
from posebatch.models.networks.pixels import Pixels
from posebatch.pose.estimator import PoseEstimator
from posebatch.pose.stage_clock import StageClock
from posebatch.video.frame_images import RGB, FrameFormat
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder

MACHINE_SETTINGS: Final = ("device", "engine")


@dataclass(frozen=True)
class Run:
    """What one setting gave of one video or of several."""

    poses: tuple[FramePoses, ...]
    frames: int
    """Processed; those that fill the last batch are in no comparison."""
    detected: int
    """Frames that the detector has seen."""
    seconds: float
    """In the networks, with cropping and reading heatmaps."""

    def __add__(self, other: Run) -> Run:
        return Run(
            self.poses + other.poses,
            self.frames + other.frames,
            self.detected + other.detected,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True)
class Comparison:
    """One setting against the reference."""

    setting: str
    persons: int
    detected: float
    """Share of the frames that the detector has seen."""
    frames_per_second: float
    speed: float
    """Relative to the reference."""
    agreement: Agreement


class CountingDetector:
    """A detector, and how many frames it has seen."""

    def __init__(self, detector: Any) -> None:
        self.record, self.batch_size, self._detector, self.frames = detector.record, detector.batch_size, detector, 0

    def detect(self, frames: Pixels) -> list[Detections]:
        """See `PersonDetector.detect`."""
        self.frames += len(frames)
        found: list[Detections] = self._detector.detect(frames)
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare and print; returns 0, or 2 when what was asked for cannot be done, or 1."""
    chosen = build_parser().parse_args(arguments)
    return run_script("compare_settings", lambda: compare_settings(chosen))


def build_parser() -> argparse.ArgumentParser:
    """The command line. Flags that ``posebatch run`` has too mean the same."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEO")
    parser.add_argument("--frames", type=_positive, metavar="N", help="take only the first N frames of each video")
    parser.add_argument(
        "--stride", type=_positive, default=1, metavar="N", help="process every N-th frame (default: 1)"
    )
    parser.add_argument("--threads", type=_positive, default=1, metavar="N", help="of the networks (default: 1)")
    parser.add_argument("--planes", action="store_true", help="compare frames that stay planes, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, of each video too")
    for item in _compared():
        parser.add_argument(
            item.flag,
            nargs="+",
            type=_truth if item.value_type is bool else item.value_type,
            default=argparse.SUPPRESS,
            metavar=item.metavar or "VALUE",
            help=item.help.replace("%", "%%"),
        )
    return parser


def compare_settings(chosen: argparse.Namespace) -> None:
    """Do what the command line says. Raises `PosebatchError`."""
    values = {item.name: getattr(chosen, item.name) for item in _compared() if hasattr(chosen, item.name)}
    settings = variants(values)
    if len(settings) == 1 and not chosen.planes:
        raise UsageError("nothing to compare: give an option two values or more, such as --detect-every 1 5")
    for video in chosen.videos:
        if not video.is_file():
            raise InputError(f"{video}: no such file")
    torch.set_num_threads(chosen.threads)
    runs = {label: [*_runs(label, one, chosen)] for label, one in settings.items()}
    reference = next(iter(settings.values()))
    if chosen.planes:
        runs["planes"] = [*_runs("planes", reference, chosen, FrameFormat(planes=True))]
    together = _comparisons({label: functools.reduce(operator.add, found) for label, found in runs.items()}, reference)
    print(report_text(together))
    if chosen.json is None:
        return
    body = {"reference": reference.flat(), "all": _plain(together)}
    for number, video in enumerate(chosen.videos):
        body[str(video)] = _plain(_comparisons({label: found[number] for label, found in runs.items()}, reference))
    try:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(body, indent=2) + "\n")
    except OSError as error:
        raise OutputError(f"--json {chosen.json}: cannot be written: {error}") from error


def variants(values: Mapping[str, Sequence[Any]]) -> dict[str, Settings]:
    """The reference, made of the first values, then one change of it after the other, each with its name."""
    first = {name: given[0] for name, given in values.items()}
    chosen = {" ".join(f"{name}={given[0]}" for name, given in values.items() if len(given) > 1): first}
    for name, given in values.items():
        chosen |= {f"{name}={value}": {**first, name: value} for value in given[1:]}
    named = {label or "rgb": one for label, one in chosen.items()}
    return {label: settings_from(one, "command line") for label, one in named.items()}


def report_text(comparisons: Sequence[Comparison]) -> str:
    """A table for a terminal; its first line is the reference."""
    heads = ["setting", "persons", "kept", "added", "AP", "AR", "median px", "p95 px", "p99 px"]
    heads += [f"> {NOTICEABLE_PX:g} px", "median height", "p95 height", "detected", "frames/s", "speed"]
    rows = []
    for one in comparisons:
        agreement = one.agreement
        known = max(agreement.reference_persons, 1)
        rows.append(
            [
                one.setting,
                str(one.persons),
                *(_number(count / known, 3) for count in (agreement.kept, agreement.added)),
                *(_number(value, 3) for value in (agreement.ap, agreement.ar)),
                *(_number(value, 3) for value in (agreement.pixels.median, agreement.pixels.p95, agreement.pixels.p99)),
                _number(agreement.noticeable, 3),
                *(_number(100 * value, 2, "%") for value in (agreement.heights.median, agreement.heights.p95)),
                _number(one.detected, 3),
                _number(one.frames_per_second, 1),
                _number(one.speed, 2),
            ]
        )
    return f"{comparisons[0].agreement.frames} frames\n{table_text(heads, rows)}"


def _compared() -> list[Option]:
    return [item for item in options() if item.group == "estimator" or item.name in MACHINE_SETTINGS]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, got {text!r}")
    return text == "true"


def _runs(label: str, settings: Settings, chosen: argparse.Namespace, packing: FrameFormat = RGB) -> Iterator[Run]:
    """Each video in turn, by one estimator."""
    estimator = PoseEstimator.load(settings.estimator, settings.execution.device, settings.execution.engine)
    estimator.detector = counting = CountingDetector(estimator.detector)
    for video in chosen.videos:
        clock, frames_before = StageClock(), counting.frames
        with video.open("rb") as file:
            info = probe(file, str(video), math.inf).info
            sampling = SamplingSettings(stride=chosen.stride)
            decoder = SegmentDecoder(
                file,
                str(video),
                Segment(),
                info,
                DecodeOptions(sampling=sampling, batch_frames=estimator.batch_frames, frame_format=packing),
            )
            poses = tuple(estimator.estimate(_first(decoder, chosen.frames), clock))
        seconds = clock.detect_seconds + clock.pose_seconds
        print(f"{label}: {video.name}, {len(poses)} frames in {seconds:.1f} s", file=sys.stderr, flush=True)
        yield Run(poses[: chosen.frames], len(poses), counting.frames - frames_before, seconds)


def _first(batches: Iterable[FrameBatch], frames: int | None) -> Iterator[FrameBatch]:
    """Batches until they hold so many frames, or all."""
    given = 0
    for batch in batches:
        yield batch
        given += len(batch.records)
        if frames is not None and given >= frames:
            return


def _comparisons(runs: Mapping[str, Run], reference: Settings) -> list[Comparison]:
    """The first run with itself, then the others with it."""
    truth = next(iter(runs.values()))
    return [
        Comparison(
            label,
            sum(map(len, run.poses)),
            run.detected / max(run.frames, 1),
            run.frames / max(run.seconds, 1e-9),
            (run.frames / max(run.seconds, 1e-9)) / (truth.frames / max(truth.seconds, 1e-9)),
            compare(truth.poses, run.poses, reference.estimator.kpt_thr),
        )
        for label, run in runs.items()
    ]


def _plain(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    return [plain_values(asdict(one)) for one in comparisons]


def _number(value: float, digits: int, unit: str = "") -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}{unit}"


if __name__ == "__main__":
    sys.exit(main())
