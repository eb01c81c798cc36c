"""The HTML page of a comparison of two networks: one file that loads nothing."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FunctionLoader, StrictUndefined

from posebatch.core.errors import OutputError
from posebatch.core.redaction import visible
from posebatch.core.text_table import number_text
from posebatch.evaluation.joint_moves import ALL_JOINTS, FAR, moved_most, persons_differ
from posebatch.evaluation.model_comparison import ModelComparison, joints_sentence, persons_sentence
from posebatch.evaluation.model_pictures import FramePair, moved_pair, persons_pair
from posebatch.storage.addresses import is_s3, local_path
from posebatch.storage.open import open_store

MOVED_FRAMES: Final = 6
"""Frames that show how joints move."""


PERSON_FRAMES: Final = 4
"""Frames that show persons whom only one network finds."""


REPORT: Final = "report.html"


def check_folder(folder: str) -> None:
    """Make a local folder, so that a wrong one is found before the long work. Raises `OutputError`."""
    if is_s3(folder):
        return
    try:
        os.makedirs(local_path(folder), exist_ok=True)
    except OSError as error:
        raise OutputError(f"--report {folder}: cannot be written: {error}") from error


def write_report(comparison: ModelComparison, folder: str, endpoint_url: str | None = None) -> str:
    """Write the page to a folder or an ``s3://`` prefix; returns its address.

    Reads the frames that it shows from the videos again. Raises `OutputError`, `StorageError` and `VideoError`.
    """
    videos, drawing = comparison.videos, (comparison.kpt_thr, endpoint_url)
    moved = [moved_pair(frame, videos[frame.video], *drawing) for frame in moved_most(comparison.moves, MOVED_FRAMES)]
    persons = [
        persons_pair(frame, videos[frame.video], *drawing) for frame in persons_differ(comparison.moves, PERSON_FRAMES)
    ]
    page = report_page(comparison, moved, persons).encode()
    if not is_s3(folder):
        return _write_local(Path(local_path(folder), REPORT), page)
    store = open_store(folder, endpoint_url)
    store.put(REPORT, page)
    return store.uri(REPORT)


def _write_local(path: Path, page: bytes) -> str:
    try:
        path.write_bytes(page)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error}") from error
    return str(path)


def report_page(comparison: ModelComparison, moved: list[FramePair], persons: list[FramePair]) -> str:
    """The page. ``moved`` and ``persons``: the pictures of the frames that differ most, by joints and by persons."""
    environment = Environment(
        loader=FunctionLoader(lambda name: (files("posebatch.evaluation") / "templates" / name).read_text("utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = lambda text: visible(text).replace("\n  | ", " ")
    everywhere = comparison.joints[-1]
    return environment.get_template("model_report.html.j2").render(
        comparison=comparison,
        sentences=(joints_sentence(comparison), persons_sentence(comparison)),
        tiles=(
            (number_text(100 * everywhere.heights.median, 1, " %"), "of a person's height: median move of a joint"),
            (number_text(100 * everywhere.far, 1, " %"), f"of the joints move more than {100 * FAR:g} % of the height"),
            (f"{comparison.lost} / {comparison.added}", f"persons lost / added, of {comparison.old.persons}"),
            (f"{comparison.time_ratio:.2f} ×", "the time of the old networks, in this one run"),
        ),
        rows=_rows(comparison),
        far=f"{100 * FAR:g}",
        groups=(
            ("Where joints move most", moved),
            ("Where persons are lost or added", persons),
        ),
    )


def _rows(comparison: ModelComparison) -> list[dict[str, Any]]:
    """The joints that move most first, and all joints together at the end."""
    rows = [*comparison.by_distance, *(row for row in comparison.joints if row.joint == ALL_JOINTS)]
    widest = max((row.heights.p95 for row in rows if row.count), default=0.0) or 1.0
    return [
        {
            "joint": row.joint.replace("_", " "),
            "count": row.count,
            "pixels": [number_text(value, 1) for value in (row.pixels.median, row.pixels.p95)],
            "heights": [number_text(100 * value, 1, " %") for value in (row.heights.median, row.heights.p95, row.far)],
            "median_bar": 100 * row.heights.median / widest if row.count else 0.0,
            "p95_bar": 100 * row.heights.p95 / widest if row.count else 0.0,
            "is_total": row.joint == ALL_JOINTS,
        }
        for row in rows
    ]
