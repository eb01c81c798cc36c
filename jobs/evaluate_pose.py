"""How good networks are on labelled images: COCO's AP, PCK and errors of joints, and the detector's figures.

    python jobs/evaluate_pose.py --data LABELS.json --images FOLDER        poses in the labelled boxes
    python jobs/evaluate_pose.py --data DATA.parquet --boxes gt detector   and from end to end, with the detector
    python jobs/evaluate_pose.py ... --boxes DETECTIONS.json               in the boxes of a detection file

Writes accuracy.json, accuracy.png and, with --pictures, sheets of persons to look at into --output.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from posebatch.cli.entry import run_script
from posebatch.core.errors import InputError, OutputError, UsageError
from posebatch.core.frames import Detections, FramePoses
from posebatch.core.settings import Settings, options, settings_from
from posebatch.evaluation.contact_sheets import write_sheet
from posebatch.evaluation.detector_accuracy import MOST_PERSONS, detect_persons, inclusive_settings, measure_detections
from posebatch.evaluation.labels import LabelledDataset, best_boxes, true_boxes
from posebatch.evaluation.plots import write_plot
from posebatch.evaluation.pose_accuracy import keypoints_for_boxes, measure_poses
from posebatch.evaluation.readers import read_dataset, read_detections
from posebatch.evaluation.report import DetectorMeasurement, PoseMeasurement, Report, report_json, report_text
from posebatch.models.networks.engines import Placement, choose_placement
from posebatch.models.networks.person_detector import load_detector
from posebatch.models.networks.pose_network import load_pose_network
from posebatch.run.progress import LINE_SECONDS, LOG_SECONDS, duration_text

GROUND_TRUTH, DETECTOR = "gt", "detector"

PAPERS_OKS_NMS_THR = 0.9

FLIP_TESTS: Mapping[str, tuple[bool, ...]] = {"off": (False,), "on": (True,), "both": (False, True)}

SETTINGS = ("preset", "detector", "decoding", "bbox_thr", "nms_thr", "kpt_thr", "max_persons", "oks_nms_thr")
MACHINE_SETTINGS = ("precision", "device", "engine")


@dataclass(frozen=True)
class Boxes:
    """Boxes for poses, and how poses from them are thinned out."""

    name: str
    detections: list[Detections]
    oks_nms_thr: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; returns 0, or 2 when what was asked for cannot be done, or 1."""
    chosen = build_parser().parse_args(arguments)
    return run_script("evaluate_pose", lambda: evaluate(chosen))


def build_parser() -> argparse.ArgumentParser:
    """The command line. Flags that ``posebatch run`` has too mean the same."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data", required=True, type=Path, metavar="FILE", help="COCO keypoint JSON, or Parquet")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="the images, when --data is JSON")
    parser.add_argument("--pose", nargs="+", default=[None], metavar="NAME|PATH", help="pose networks to compare")
    parser.add_argument(
        "--boxes",
        nargs="+",
        default=[GROUND_TRUTH],
        metavar="SOURCE",
        help="gt: labelled boxes (default); detector: ours, from end to end; FILE.json: COCO's result format",
    )
    parser.add_argument(
        "--flip-test", nargs="?", choices=tuple(FLIP_TESTS), const="on", default="off", help="off (default), on, both"
    )
    parser.add_argument("--detector-only", action="store_true", help="measure boxes and no poses")
    parser.add_argument("--pictures", type=int, default=0, metavar="N", help="draw the N worst persons, and N others")
    parser.add_argument("--output", type=Path, default=Path("out/accuracy"), metavar="FOLDER")
    for item in options():
        if item.name in (*SETTINGS, *MACHINE_SETTINGS):
            metavar = item.metavar or ("{" + ",".join(item.choices) + "}" if item.choices else None)
            default = PAPERS_OKS_NMS_THR if item.name == "oks_nms_thr" else item.default
            parser.add_argument(
                item.flag,
                type=item.value_type,
                metavar=metavar,
                default=argparse.SUPPRESS,
                help=f"{item.help}{'' if default is None else f' (default: {default})'}",
            )
    return parser


def evaluate(chosen: argparse.Namespace) -> None:
    """Do what the command line says. Raises `PosebatchError`."""
    given = {name: value for name, value in vars(chosen).items() if name in (*SETTINGS, *MACHINE_SETTINGS)}
    settings = settings_from({"oks_nms_thr": PAPERS_OKS_NMS_THR, **given}, "command line")
    if chosen.detector_only and set(chosen.boxes) == {GROUND_TRUTH}:
        raise UsageError("--detector-only measures boxes: add --boxes detector, or --boxes FILE.json")
    dataset = read_dataset(chosen.data, chosen.images)
    if not chosen.detector_only and not dataset.has_keypoints:
        raise InputError(f"{chosen.data}: its labels hold no keypoints; --detector-only measures boxes alone")
    folder = _made(chosen.output)
    detectors, sources = _boxes(chosen.boxes, dataset, settings, given)
    poses = []
    if not chosen.detector_only:
        runs = itertools.product(chosen.pose, sources, FLIP_TESTS[chosen.flip_test])
        for number, (pose, source, flip_test) in enumerate(runs, start=1):
            sheet = folder / f"persons_{number}.png" if chosen.pictures else None
            poses.append(_poses(pose, source, flip_test, dataset, settings, chosen.pictures, sheet))
    report = Report(
        dataset.name,
        len(dataset.images),
        dataset.num_persons,
        dataset.num_posed,
        tuple(detectors),
        tuple(poses),
    )
    print(report_text(report))
    (folder / "accuracy.json").write_text(json.dumps(report_json(report), indent=2) + "\n")
    write_plot(report, folder / "accuracy.png")
    print(f"\nwritten to {folder}")


def _boxes(
    names: Sequence[str], dataset: LabelledDataset, settings: Settings, given: Mapping[str, Any]
) -> tuple[list[DetectorMeasurement], list[Boxes]]:
    """The boxes of each source, and how good they are where they are not the labels."""
    estimator, detectors, sources = settings.estimator, [], []
    for name in names:
        if name == GROUND_TRUTH:  # nobody is there twice, so all stay
            sources.append(Boxes("labelled boxes", true_boxes(dataset), oks_nms_thr=1.0))
            continue
        if name == DETECTOR:
            title, every = _short(estimator.detector_name), _detected(dataset, settings)
            kept = best_boxes(every, estimator.bbox_thr, estimator.max_persons)
        else:  # as the paper does: every box of the file, unless flags say otherwise
            title, every = Path(name).name, read_detections(Path(name), dataset)
            kept = best_boxes(every, given.get("bbox_thr", 0.0), given.get("max_persons", MOST_PERSONS))
        detectors.append(DetectorMeasurement(title, measure_detections(dataset, every)))
        sources.append(Boxes(f"boxes of {title}", kept, estimator.oks_nms_thr))
    return detectors, sources


def _detected(dataset: LabelledDataset, settings: Settings) -> list[Detections]:
    name = settings.estimator.detector_name
    detector = load_detector(name, inclusive_settings(settings.estimator.nms_thr, _placement(settings)))
    progress = ProgressLine(f"boxes by {_short(name)}", len(dataset.images))
    return detect_persons(detector, dataset, progress.show)


def _poses(
    pose: str | None,
    boxes: Boxes,
    flip_test: bool,
    dataset: LabelledDataset,
    settings: Settings,
    pictures: int,
    sheet: Path | None,
) -> PoseMeasurement:
    estimator = replace(
        settings.estimator,
        pose=pose or settings.estimator.pose,
        flip_test=flip_test,
        oks_nms_thr=boxes.oks_nms_thr,
    )
    placement = _placement(settings)
    network = load_pose_network(estimator.pose_name, placement)
    found = keypoints_for_boxes(network, dataset, boxes.detections, estimator, placement)
    progress = ProgressLine(f"poses by {_short(estimator.pose_name)}, {boxes.name}", len(dataset.images))
    poses = list(progress.watched(found))
    if sheet:
        write_sheet(dataset, poses, pictures, estimator.kpt_thr, sheet)
    accuracy = measure_poses(network, dataset, poses)
    name = _short(estimator.pose_name)
    return PoseMeasurement(name, network.record.identity, boxes.name, flip_test, estimator.decoding, accuracy)


def _placement(settings: Settings) -> Placement:
    return choose_placement(settings.execution.device, settings.estimator.precision, settings.execution.engine)


def _short(name_or_path: str) -> str:
    return Path(name_or_path.removesuffix(".tar")).stem


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--output {folder}: cannot be made: {error}") from error
    return folder


class ProgressLine:
    """How far one part of the work is: a live line on a terminal, a plain line now and then in a log."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._live = sys.stderr.isatty()
        self._started = self._shown = time.monotonic()

    def show(self, done: int) -> None:
        """Report, if it is time to."""
        now = time.monotonic()
        last = done >= self._total
        if not last and now - self._shown < (LINE_SECONDS if self._live else LOG_SECONDS):
            return
        self._shown = now
        rate = done / max(now - self._started, 1e-9)
        left = f"{duration_text((self._total - done) / rate)} left"
        line = f"{self._what}: {done}/{self._total} images, {rate:.1f} images/s"
        line += f", {duration_text(now - self._started)} in all" if last else f", {left}"
        start, end = ("\r\x1b[K", "\n" if last else "") if self._live else ("", "\n")
        print(f"{start}{line}", end=end, file=sys.stderr, flush=True)

    def watched(self, poses: Iterable[FramePoses]) -> Iterator[FramePoses]:
        """Pass on the poses of one image after the other."""
        for done, found in enumerate(poses, start=1):
            yield found
            self.show(done)


if __name__ == "__main__":
    sys.exit(main())
