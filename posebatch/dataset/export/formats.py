"""The registry of export formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from posebatch.core.errors import UsageError
from posebatch.core.options import nearest
from posebatch.dataset.export.c3d import c3d_files
from posebatch.dataset.export.coco import coco_files
from posebatch.dataset.export.dlc import dlc_files
from posebatch.dataset.export.files import ExportedFile
from posebatch.dataset.export.flat import csv_files, ndjson_files
from posebatch.dataset.export.mot import mot_files
from posebatch.dataset.export.sleap import sleap_files
from posebatch.dataset.export.trc import trc_files
from posebatch.dataset.export.video_motion import VideoMotion
from posebatch.dataset.export.workbook import workbook_files


@dataclass(frozen=True)
class Format:
    """One format: how its files are made."""

    files: Callable[[VideoMotion], Iterator[ExportedFile]]
    """The files of one video that has at least one track."""
    libraries: tuple[str, ...] = ()
    """Optional libraries that it needs, see `posebatch.core.extras`."""


FORMATS: Final[Mapping[str, Format]] = {
    "coco": Format(coco_files),
    "dlc": Format(dlc_files, ("tables",)),
    "sleap": Format(sleap_files, ("sleap_io",)),
    "trc": Format(trc_files),
    "mot": Format(mot_files),
    "c3d": Format(c3d_files, ("ezc3d",)),
    "csv": Format(csv_files),
    "xlsx": Format(workbook_files, ("xlsxwriter",)),
    "ndjson": Format(ndjson_files),
}
"""All formats, by the name that ``--format`` takes."""


def format_called(name: str) -> Format:
    """The format of a name. Raises `UsageError`, which lists the names, for an unknown one."""
    if name not in FORMATS:
        raise UsageError(f"--format {name}: not one of {', '.join(FORMATS)}{nearest(name, FORMATS)}")
    return FORMATS[name]
