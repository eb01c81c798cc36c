"""Networks on one labelled dataset: boxes of each source, poses in them, and the report on both."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from posebatch.core.errors import OutputError
from posebatch.core.frames import Detections
from posebatch.core.settings import Settings
from posebatch.evaluation.contact_sheets import write_sheet
from posebatch.evaluation.detector_accuracy import MOST_PERSONS, detect_persons, inclusive_settings, measure_detections
from posebatch.evaluation.labels import GROUND_TRUTH, LabelledDataset, best_boxes, true_boxes
from posebatch.evaluation.plots import write_plot
from posebatch.evaluation.pose_accuracy import keypoints_for_boxes, measure_poses
from posebatch.evaluation.progress_bar import progress_bar
from posebatch.evaluation.readers import read_detections
from posebatch.evaluation.report import DetectorMeasurement, PoseMeasurement, Report, report_json
from posebatch.models.networks.engines import Placement, choose_placement
from posebatch.models.networks.person_detector import load_detector
from posebatch.models.networks.pose_network import load_pose_network

DETECTOR: Final = "detector"
"""Names the detector of the settings as a source of boxes."""


@dataclass(frozen=True)
class Boxes:
    """Boxes of one source, and the OKS-NMS threshold for poses in them."""

    name: str
    detections: list[Detections]
    """One entry per image of the dataset."""
    oks_nms_thr: float


@dataclass(frozen=True)
class Evaluation:
    """Which networks to measure, and in which boxes."""

    settings: Settings
    given: Mapping[str, Any]
    """The settings that the user gave. Boxes of a file are filtered by these only."""
    pose_networks: Sequence[str | None]
    """Names or paths; None is the network of ``settings``."""
    box_sources: Sequence[str]
    """`GROUND_TRUTH`, `DETECTOR`, or the path of a file in COCO's result format."""
    flip_tests: Sequence[bool]
    with_poses: bool = True
    raw_scores: bool = False
    """Whether peaks of the heatmaps are the scores, also for weights with a calibration."""
    pictures: int = 0
    """Persons on a contact sheet: so many of the worst, and as many others. 0 writes no sheet."""


def evaluate_networks(dataset: LabelledDataset, evaluation: Evaluation, folder: Path) -> Report:
    """Measure every combination of pose network, boxes and flip test. Contact sheets go to ``folder``.

    Raises `InputError`, `SettingsError` and `WeightsError`.
    """
    detectors, sources = collect_boxes(dataset, evaluation)
    poses = []
    if evaluation.with_poses:
        runs = itertools.product(evaluation.pose_networks, sources, evaluation.flip_tests)
        for number, (pose, boxes, flip_test) in enumerate(runs, start=1):
            sheet = folder / f"persons_{number}.png" if evaluation.pictures else None
            poses.append(_measure_pose_network(pose, boxes, flip_test, dataset, evaluation, sheet))
    return Report(
        dataset.name,
        len(dataset.images),
        dataset.num_persons,
        dataset.num_posed,
        tuple(detectors),
        tuple(poses),
    )


def collect_boxes(dataset: LabelledDataset, evaluation: Evaluation) -> tuple[list[DetectorMeasurement], list[Boxes]]:
    """The boxes of each source, and the accuracy of those that are not the labels."""
    estimator, detectors, sources = evaluation.settings.estimator, [], []
    for name in evaluation.box_sources:
        if name == GROUND_TRUTH:  # no person is labelled twice, so OKS-NMS must remove none
            sources.append(Boxes("labelled boxes", true_boxes(dataset), oks_nms_thr=1.0))
            continue
        if name == DETECTOR:
            title, all_boxes = _short(estimator.detector_name), _detect(dataset, evaluation.settings)
            kept = best_boxes(all_boxes, estimator.bbox_thr, estimator.max_persons)
        else:  # the paper uses every box of the file; flags may say otherwise
            title, all_boxes = Path(name).name, read_detections(Path(name), dataset)
            given = evaluation.given
            kept = best_boxes(all_boxes, given.get("bbox_thr", 0.0), given.get("max_persons", MOST_PERSONS))
        detectors.append(DetectorMeasurement(title, measure_detections(dataset, all_boxes)))
        sources.append(Boxes(f"boxes of {title}", kept, estimator.same_person_oks))
    return detectors, sources


def make_folder(folder: Path) -> Path:
    """Make the folder of the results. Raises `OutputError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--output {folder}: cannot be made: {error}") from error
    return folder


def write_report(report: Report, folder: Path) -> None:
    """Write ``accuracy.json`` and ``accuracy.png``."""
    (folder / "accuracy.json").write_text(json.dumps(report_json(report), indent=2) + "\n")
    write_plot(report, folder / "accuracy.png")


def _detect(dataset: LabelledDataset, settings: Settings) -> list[Detections]:
    name = settings.estimator.detector_name
    detector = load_detector(name, inclusive_settings(settings.estimator.nms_thr, _placement(settings)))
    with progress_bar(f"boxes by {_short(name)}", len(dataset.images), "images") as bar:
        return detect_persons(detector, dataset, lambda done: bar.update(done - bar.n))


def _measure_pose_network(
    pose: str | None,
    boxes: Boxes,
    flip_test: bool,
    dataset: LabelledDataset,
    evaluation: Evaluation,
    sheet: Path | None,
) -> PoseMeasurement:
    settings = evaluation.settings
    estimator = replace(
        settings.estimator,
        pose=pose or settings.estimator.pose,
        flip_test=flip_test,
        oks_nms_thr=boxes.oks_nms_thr,
    )
    placement, name = _placement(settings), _short(estimator.pose_name)
    network = load_pose_network(estimator.pose_name, placement)
    if evaluation.raw_scores:
        network.record = replace(network.record, score_calibration=())
    poses = []
    with progress_bar(f"poses by {name}, {boxes.name}", len(dataset.images), "images") as bar:
        for frame in keypoints_for_boxes(network, dataset, boxes.detections, estimator, placement):
            poses.append(frame)
            bar.update()
    if sheet:
        write_sheet(dataset, poses, evaluation.pictures, estimator.kpt_thr, sheet)
    accuracy = measure_poses(network, dataset, poses)
    return PoseMeasurement(name, network.record.identity, boxes.name, flip_test, estimator.decoding, accuracy)


def _placement(settings: Settings) -> Placement:
    return choose_placement(settings.execution.device, settings.estimator.precision, settings.execution.engine)


def _short(name_or_path: str) -> str:
    return Path(name_or_path.removesuffix(".tar")).stem
