"""The report of an evaluation, as text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from posebatch.core.text_table import number_text, text_table
from posebatch.evaluation.average_precision import THRESHOLDS
from posebatch.evaluation.detector_accuracy import WANTED_PRECISION, DetectorAccuracy
from posebatch.evaluation.doubles import RIGHT_OKS
from posebatch.evaluation.drawn_joints import SCORES, DrawnJoints
from posebatch.evaluation.joints import PCK_TORSO
from posebatch.evaluation.pose_accuracy import PoseAccuracy
from posebatch.evaluation.score_reliability import RIGHT_TORSO, ScoreReliability


@dataclass(frozen=True)
class PoseMeasurement:
    """One pose network in the boxes of one source."""

    pose: str
    """The network's name."""
    identity: str
    """Name and hash of its weights."""
    boxes: str
    """The source of the boxes."""
    flip_test: bool
    decoding: str
    accuracy: PoseAccuracy

    @property
    def label(self) -> str:
        """Network, boxes and flip test, for legends and tables."""
        return f"{self.pose}, {self.boxes}{', flip test' if self.flip_test else ''}"


@dataclass(frozen=True)
class DetectorMeasurement:
    """One source of boxes."""

    boxes: str
    """The detector or the file."""
    accuracy: DetectorAccuracy


@dataclass(frozen=True)
class Report:
    """All measurements on one dataset."""

    data: str
    images: int
    persons: int
    """Labelled persons that are not ignored."""
    posed: int
    """Labelled persons whose pose is measured."""
    detectors: tuple[DetectorMeasurement, ...]
    poses: tuple[PoseMeasurement, ...]


def report_text(report: Report) -> str:
    """The report as tables for a terminal."""
    parts = [f"{report.data}: {report.images} images, {report.persons} persons, {report.posed} with a pose to measure"]
    parts += [_detector_text(measurement) for measurement in report.detectors]
    if report.poses:
        parts.append(_precision_text(report.poses))
    for measurement in report.poses:
        accuracy = measurement.accuracy
        parts += [_joint_text(measurement), _drawn_text(accuracy.drawn_joints), _reliability_text(accuracy.reliability)]
    return "\n\n".join(parts)


def report_json(report: Report) -> dict[str, Any]:
    """The report as plain values. A figure that could not be measured is None."""
    body = asdict(report)
    for detector in body["detectors"]:
        del detector["accuracy"]["ranked"]  # thousands of boxes, only for the curve
    body["oks_and_iou_thresholds"] = THRESHOLDS
    plain: dict[str, Any] = plain_values(body)
    return plain


def plain_values(value: Any) -> Any:
    """Nested dicts and lists for JSON: nan becomes None, tuples become lists."""
    if isinstance(value, dict):
        return {key: plain_values(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _detector_text(measurement: DetectorMeasurement) -> str:
    accuracy = measurement.accuracy
    figures = accuracy.average_precision
    heads = ["score above", "recall", "precision", "false/image", "boxes/image"]
    rows = [
        [
            f"{at.bbox_thr:g}",
            *_shares(at.recall, at.precision),
            *(number_text(count, 2) for count in (at.false_per_image, at.boxes_per_image)),
        ]
        for at in accuracy.thresholds
    ]
    summary = ", ".join(
        f"{name} {value}"
        for name, value in zip(
            ("AP", "AP50", "AP75", "AP medium", "AP large", "AR"),
            _shares(figures.ap, figures.ap50, figures.ap75, figures.ap_medium, figures.ap_large, figures.ar),
            strict=True,
        )
    )
    wanted = (
        f"recall {_shares(accuracy.recall_at_wanted_precision)[0]} at precision {WANTED_PRECISION:.2f} "
        f"(score {_shares(accuracy.wanted_precision_score)[0]})"
    )
    return f"persons by {measurement.boxes}\n{summary}\n{wanted}\n{text_table(heads, rows)}"


def _precision_text(measurements: Sequence[PoseMeasurement]) -> str:
    heads = ["poses", "AP", "AP50", "AP75", "AP M", "AP L", "AR", "AR50", "PCK", "bias x", "bias y", "found"]
    heads += ["all poses", "right", "doubles"]
    rows = []
    for measurement in measurements:
        accuracy, figures = measurement.accuracy, measurement.accuracy.average_precision
        values = (figures.ap, figures.ap50, figures.ap75, figures.ap_medium, figures.ap_large, figures.ar, figures.ar50)
        all_joints = accuracy.joints[-1]
        shares = _shares(*values, all_joints.pck, all_joints.bias_x_cells, all_joints.bias_y_cells)
        counts = (accuracy.found, accuracy.counts.poses, accuracy.counts.right, accuracy.counts.doubles)
        rows.append([measurement.label, *shares, *map(str, counts)])
    return (
        f"{text_table(heads, rows)}\nbias: median of estimate minus label, heatmap cells, right and down positive\n"
        f"right: OKS of at least {RIGHT_OKS:g}; doubles: further poses as close to a person with a right one"
    )


def _joint_text(measurement: PoseMeasurement) -> str:
    heads = [
        "joint",
        "labels",
        "found",
        f"PCK@{PCK_TORSO:g}",
        "median px",
        "mean px",
        "median torso",
        "mean torso",
        "bias x",
        "bias y",
    ]
    rows = [
        [
            row.joint,
            str(row.labelled),
            str(row.found),
            *_shares(row.pck),
            *(number_text(value, 1) for value in (row.median_px, row.mean_px)),
            *_shares(row.median_torso, row.mean_torso, row.bias_x_cells, row.bias_y_cells),
        ]
        for row in measurement.accuracy.joints
    ]
    return f"{measurement.label}\n{text_table(heads, rows)}"


def _drawn_text(measured: Sequence[DrawnJoints]) -> str:
    heads = ["right / kept of those that score above", *(f"{score:g}" for score in SCORES)]
    rows: dict[str, list[str]] = {}
    for at in measured:
        rows.setdefault(at.joint, [at.joint]).append(" / ".join(_shares(at.right, at.kept)))
    return text_table(heads, list(rows.values()))


def _reliability_text(measured: ScoreReliability) -> str:
    heads = ["score from", "joints", "mean score", f"right to {RIGHT_TORSO:g} torso"]
    rows = [[f"{at.low:g}", str(at.joints), *_shares(at.mean_score, at.right)] for at in measured.bins]
    (error,) = _shares(measured.calibration_error)
    return f"{text_table(heads, rows)}\nexpected calibration error of the scores: {error}"


def _shares(*values: float) -> list[str]:
    return [number_text(value, 3) for value in values]
