"""Who a detector finds, by size, as a run with the same settings detects: on labelled images or videos.

    python jobs/evaluate_boxes.py --data DATA.parquet --tiles 2x4
    python jobs/evaluate_boxes.py --video VIDEO --truth TRUTH.csv --stride 5 --preset far

A truth file has a line for each person in each frame: frame_index, id, x1, y1, x2, y2, visible; id 0 is a place to
ignore. Frames count from its first to its last. Prints persons, recall and false boxes for each height.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from posebatch.cli.entry import run_script
from posebatch.core.errors import InputError, UsageError
from posebatch.core.frames import Detections
from posebatch.core.settings import SamplingSettings, options, settings_from
from posebatch.core.videos import Segment
from posebatch.evaluation.boxes_found import HEIGHTS, NOBODY, Finding, finding, read_truth, true_boxes_of
from posebatch.evaluation.detector_accuracy import detect_persons
from posebatch.evaluation.readers import read_dataset
from posebatch.evaluation.report import table_text
from posebatch.models.networks.engines import choose_placement
from posebatch.models.networks.person_detector import PersonDetector
from posebatch.models.networks.pixels import Pixels
from posebatch.pose.estimator import load_person_detector
from posebatch.pose.uploads import to_device
from posebatch.video.frame_images import RGB
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder

NAMES = ("preset", "detector", "detect_size", "tiles", "bbox_thr", "nms_thr", "max_persons")
MACHINE = ("precision", "device", "engine")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns 0, or 2 when what was asked for cannot be done, or 1."""
    chosen = build_parser().parse_args(arguments)
    return run_script("evaluate_boxes", lambda: evaluate(chosen))


def build_parser() -> argparse.ArgumentParser:
    """The command line. Flags that ``posebatch run`` has too mean the same."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help="labelled images: COCO keypoint JSON, or Parquet")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="the images, when --data is JSON")
    parser.add_argument("--video", type=Path, metavar="FILE")
    parser.add_argument("--truth", type=Path, metavar="FILE.csv", help="the true boxes of the video")
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="of the video, every N-th frame")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of the networks (default: 1)")
    for item in options():
        if item.name in (*NAMES, *MACHINE):
            help_text = item.help.replace("%", "%%")
            parser.add_argument(item.flag, type=item.value_type, default=argparse.SUPPRESS, help=help_text)
    return parser


def evaluate(chosen: argparse.Namespace) -> None:
    """Do what the command line says. Raises `PosebatchError`."""
    given = {name: value for name, value in vars(chosen).items() if name in (*NAMES, *MACHINE)}
    settings = settings_from(given, "command line")
    if (chosen.data is None) == (chosen.video is None) or (chosen.video is None) != (chosen.truth is None):
        raise UsageError("give --data, or --video and --truth")
    torch.set_num_threads(chosen.threads)
    placement = choose_placement(settings.execution.device, settings.estimator.precision, settings.execution.engine)
    detector = Timed(load_person_detector(settings.estimator, placement))
    total = Finding.nothing()
    if chosen.data is not None:
        dataset = read_dataset(chosen.data, chosen.images)
        for truth, found in zip(true_boxes_of(dataset), detect_persons(detector, dataset), strict=True):
            total += finding(truth, found.bbox_xyxy)
    else:
        truths = read_truth(chosen.truth)
        for number, found in _detected(detector, chosen.video, chosen.stride, placement.device, max(truths)):
            if number >= min(truths):
                total += finding(truths.get(number, NOBODY), found.bbox_xyxy)
    print(report_text(total))
    seconds = max(detector.seconds, 1e-9)
    print(f"{detector.frames / seconds:.1f} frames/s of the detector; {detector.cut} frames with more than max-persons")


class Timed:
    """A detector, how long it takes, and how often it has cut somebody."""

    def __init__(self, detector: PersonDetector) -> None:
        self.record, self.batch_size, self._detector = detector.record, detector.batch_size, detector
        self.seconds, self.frames, self.cut = 0.0, 0, 0

    def detect(self, frames: Pixels) -> list[Detections]:
        """See `PersonDetector.detect`."""
        started = time.perf_counter()
        found = self._detector.detect(frames)
        self.seconds += time.perf_counter() - started
        self.frames += len(frames)
        self.cut += sum(one.left_out > 0 for one in found)
        return found


def _detected(
    detector: PersonDetector, video: Path, stride: int, device: str, last: int
) -> Iterator[tuple[int, Detections]]:
    """Frame numbers of a video up to the last one, and who is found there."""
    if not video.is_file():
        raise InputError(f"{video}: no such file")
    with video.open("rb") as file:
        info = probe(file, str(video), math.inf).info
        sampling = SamplingSettings(stride=stride)
        decoder = SegmentDecoder(
            file,
            str(video),
            Segment(),
            info,
            DecodeOptions(sampling=sampling, batch_frames=detector.batch_size, frame_format=RGB),
        )
        for batch in decoder:
            numbers = [record.frame_index for record in batch.records if record.status == "ok"]
            found = detector.detect(to_device(batch.images, device))
            for number, one in zip(numbers, found, strict=True):
                if number > last:
                    return
                yield number, one


def report_text(total: Finding) -> str:
    """A table: a line for each height, and one for all."""
    bounds = [*HEIGHTS, math.inf]
    names = [f"{low} to {high}" if high < math.inf else f"from {low}" for low, high in pairwise(bounds)]
    columns = [np.append(values, values.sum()) for values in (total.persons, total.found, total.false)]
    rows = [
        [name, str(persons), f"{found / persons:.3f}" if persons else "-", f"{false / max(total.frames, 1):.3f}"]
        for name, persons, found, false in zip([*names, "all"], *columns, strict=True)
    ]
    return f"{total.frames} frames\n" + table_text(["height, px", "persons", "found", "false boxes a frame"], rows)


if __name__ == "__main__":
    sys.exit(main())
