"""Persons that different settings give on the same videos, compared with those of reference settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from posebatch.core.settings import Settings, settings_from
from posebatch.core.text_table import number_text, text_table
from posebatch.evaluation.agreement import NOTICEABLE_PX, Agreement, compare
from posebatch.evaluation.report import plain_values
from posebatch.evaluation.setting_runs import SettingRun

PLANES: Final = "planes"
"""Label of the run whose frames stay in the decoder's planes."""


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


def variants(values: Mapping[str, Sequence[Any]]) -> dict[str, Settings]:
    """Settings by label. The first are the reference, made of the first values; each other changes one value of it."""
    first = {name: given[0] for name, given in values.items()}
    reference = " ".join(f"{name}={given[0]}" for name, given in values.items() if len(given) > 1)
    by_label = {reference or "rgb": first}
    for name, given in values.items():
        by_label |= {f"{name}={value}": {**first, name: value} for value in given[1:]}
    return {label: settings_from(flat, "command line") for label, flat in by_label.items()}


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
