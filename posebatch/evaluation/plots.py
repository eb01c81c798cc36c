"""The report as a picture: PCK of joints, AP by threshold, the detector's precision-recall curve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from posebatch.evaluation.average_precision import THRESHOLDS
from posebatch.evaluation.detector_accuracy import WANTED_PRECISION
from posebatch.evaluation.joints import PCK_TORSO
from posebatch.evaluation.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write_plot(report: Report, path: Path) -> None:
    """Draw a PNG of the panels that have figures. Writes nothing for a report without figures."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional

    panels = [_joint_bars, _threshold_curves] if report.poses else []
    panels += [_precision_recall] if report.detectors else []
    if not panels:
        return
    figure = Figure(figsize=(5.2 * len(panels), 4.4 + 0.2 * len(report.poses)), layout="constrained")
    for axes, draw in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        draw(axes, report)
    figure.suptitle(f"{report.data}: {report.images} images, {report.persons} persons")
    if report.poses:  # one legend for both: bars and curves of a measurement share a colour
        figure.legend(*figure.axes[1].get_legend_handles_labels(), loc="outside lower left", fontsize="small")
    figure.savefig(path, dpi=100)


def _joint_bars(axes: Axes, report: Report) -> None:
    names = [row.joint for row in report.poses[0].accuracy.joints]
    height = 0.8 / len(report.poses)
    for i, measurement in enumerate(report.poses):
        positions = np.arange(len(names)) + (i - (len(report.poses) - 1) / 2) * height
        axes.barh(positions, [row.pck for row in measurement.accuracy.joints], height)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.grid(axis="x", alpha=0.4)
    axes.set_title(f"joints within {PCK_TORSO:g} torso lengths (PCK)")


def _threshold_curves(axes: Axes, report: Report) -> None:
    for measurement in report.poses:
        figures = measurement.accuracy.average_precision
        axes.plot(THRESHOLDS, figures.ap_by_threshold, marker="o", label=f"{measurement.label}: AP {figures.ap:.3f}")
    axes.set_ylim(0, 1)
    axes.set_xlabel("OKS at which a pose is right")
    axes.grid(alpha=0.4)
    axes.set_title("average precision of poses")


def _precision_recall(axes: Axes, report: Report) -> None:
    for measurement in report.detectors:
        accuracy, ranked = measurement.accuracy, measurement.accuracy.ranked
        corners = np.flatnonzero(ranked.correct)  # between two right boxes the curve only falls
        label = f"{measurement.boxes}: AP50 {accuracy.average_precision.ap50:.3f}"
        (line,) = axes.plot(ranked.recall[corners], ranked.precision[corners], label=label)
        if accuracy.recall_at_wanted_precision > 0:
            axes.plot(accuracy.recall_at_wanted_precision, WANTED_PRECISION, marker="o", color=line.get_color())
    axes.axhline(WANTED_PRECISION, color="grey", linestyle=":")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("recall at IoU 0.5")
    axes.set_ylabel("precision")
    axes.grid(alpha=0.4)
    axes.legend(loc="lower left", fontsize="small")
    axes.set_title("persons found by the detector")
