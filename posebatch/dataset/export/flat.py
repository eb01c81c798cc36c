"""The tables themselves as text: CSV and newline-delimited JSON."""

from __future__ import annotations

from collections.abc import Iterator

from posebatch.dataset.export.files import ExportedFile
from posebatch.dataset.export.video_motion import VideoMotion


def csv_files(motion: VideoMotion) -> Iterator[ExportedFile]:
    """Two files: the rows of motion, and the tracks. Empty cells are NaN or null. Numbers keep all their digits."""
    yield ExportedFile(".motion.csv", motion.rows.to_csv(index=False, lineterminator="\n").encode())
    yield ExportedFile(".tracks.csv", motion.tracks.to_csv(index=False, lineterminator="\n").encode())


def ndjson_files(motion: VideoMotion) -> Iterator[ExportedFile]:
    """Two files with one object a line, of the same columns as the tables; NaN is null."""
    for name, table in (("motion", motion.rows), ("tracks", motion.tracks)):
        text = table.to_json(orient="records", lines=True, double_precision=15, force_ascii=False)
        yield ExportedFile(f".{name}.ndjson", text.encode())
