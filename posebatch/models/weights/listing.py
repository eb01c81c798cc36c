"""The table of the available networks: ``posebatch models``. Loads none of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from posebatch.core.text_table import text_table
from posebatch.models.weights.cache import cache_folder, cached_path
from posebatch.models.weights.names import EMBEDDED, describe, known_names, published_file
from posebatch.models.weights.published import (
    EMBEDDED_DETECTOR_GFLOPS,
    EMBEDDED_DETECTOR_PARAMETERS,
    POSE_PARAMETERS,
    TORCHVISION_DETECTORS,
    pose_gflops,
)
from posebatch.models.weights.records import AnyRecord, Kind, PoseRecord

_LONGEST_LICENCE = 18
"""Characters. Longer ones become footnotes."""


_HEADINGS: Final = ("input", "GFLOPs", "params", "AP publ.", "AP here", "licence", "weights")


_ALIGNMENT: Final = "<<>>><<<>"
"""Of the network's name, `_HEADINGS`, and the measured speed: numbers right, words left."""


@dataclass(frozen=True)
class ModelRow:
    """One registered network."""

    kind: Kind
    name: str
    input_size: str
    """Width x height in pixels, or ``follows the frame``."""
    gflops: float
    """For one crop or frame; a multiplication and an addition count as two."""
    parameters: int
    ap_published: float | None
    """Of its authors, on COCO val2017: OKS AP of a pose network, box AP over 80 classes of a detector."""
    ap_here: str
    """Our measurement: the kind of AP, and its value."""
    accuracy: str
    """All figures, and the data of the measurement."""
    measured_on: str
    licence: str
    weights: str
    """``package``, ``cached``, ``download``, or ``by hand`` if there is no address to download from."""
    source: str
    """Origin of the weights."""


def list_models() -> list[ModelRow]:
    """All networks for ``--pose`` and ``--detector``: pose networks first, and embedded ones first of each kind."""
    return [_row(kind, name) for kind in EMBEDDED for name in known_names(kind)]


def models_table(rows: Sequence[ModelRow], speeds: Mapping[str, str]) -> str:
    """The table as text. ``speeds`` by name add a column."""
    footnotes: list[str] = []
    blocks = [_block(kind, [row for row in rows if row.kind == kind], speeds, footnotes) for kind in EMBEDDED]
    notes = [
        *(f"[{number}] {text}" for number, text in enumerate(footnotes, 1)),
        "GFLOPs: of one crop or frame, a multiplication and an addition counted as two.",
        "AP publ.: by its makers, on COCO val2017; OKS AP of pose networks (boxes of person AP 0.564, flip test), "
        "box AP over 80 classes of detectors.",
        *sorted({f"AP here: on {row.measured_on}" for row in rows if row.ap_here}),
        f"weights: in the package, in {cache_folder()}, to be downloaded once, or to be got by hand (docs/models.md).",
    ]
    return "\n\n".join([*blocks, "\n".join(notes)])


def _block(kind: Kind, rows: Sequence[ModelRow], speeds: Mapping[str, str], footnotes: list[str]) -> str:
    title = f"{kind} network" if kind == "pose" else kind
    headings = [title, *_HEADINGS, *(["crops/s" if kind == "pose" else "frames/s"] if speeds else [])]
    cells = [_cells(row, footnotes) + ([speeds.get(row.name, "")] if speeds else []) for row in rows]
    return text_table(headings, cells, _ALIGNMENT[: len(headings)])


def _cells(row: ModelRow, footnotes: list[str]) -> list[str]:
    return [
        row.name,
        row.input_size,
        f"{row.gflops:.1f}",
        f"{row.parameters / 1e6:.1f} M",
        "" if row.ap_published is None else f"{row.ap_published:.3f}",
        row.ap_here,
        row.licence if len(row.licence) <= _LONGEST_LICENCE else _footnote(row.licence, footnotes),
        row.weights,
    ]


def _footnote(text: str, footnotes: list[str]) -> str:
    """The mark of a footnote, which is added unless it is there."""
    if text not in footnotes:
        footnotes.append(text)
    return f"[{footnotes.index(text) + 1}]"


def _row(kind: Kind, name: str) -> ModelRow:
    record: AnyRecord = describe(kind, name)
    embedded = name in EMBEDDED[kind]
    figures = {key: value for key, value in record.accuracy.items() if isinstance(value, float)}
    leading = next(iter(figures.items()), None)
    gflops, parameters = network_cost(record)
    size = record.input_size_wh
    return ModelRow(
        kind=kind,
        name=name,
        input_size=f"{size[0]}x{size[1]}" if size else "follows the frame",
        gflops=gflops,
        parameters=parameters,
        ap_published=None if embedded or leading is None else leading[1],
        ap_here=f"{leading[0]} {leading[1]:.3f}" if embedded and leading else "",
        accuracy=", ".join(f"{key} {value}" for key, value in record.accuracy.items()),
        measured_on=str(record.accuracy.get("measured on", "")),
        licence=record.licence,
        weights="package" if embedded else _where_weights_are(name),
        source=record.source,
    )


def network_cost(record: AnyRecord) -> tuple[float, int]:
    """GFLOPs for one image, where a multiplication and an addition count as two, and the number of parameters."""
    if isinstance(record, PoseRecord):
        return pose_gflops(record.architecture, record.input_size_wh), POSE_PARAMETERS[record.architecture]
    if record.architecture in TORCHVISION_DETECTORS:
        detector = TORCHVISION_DETECTORS[record.architecture]
        return detector.gflops, detector.parameters
    return EMBEDDED_DETECTOR_GFLOPS, EMBEDDED_DETECTOR_PARAMETERS


def _where_weights_are(name: str) -> str:
    file = published_file(name)
    if cached_path(file).exists():
        return "cached"
    return "download" if file.url else "by hand"
