"""Excel workbooks, written by XlsxWriter: one a video, with a sheet for each table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from posebatch.dataset.export.files import ExportedFile, bytes_written
from posebatch.dataset.export.video_motion import VideoMotion

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS: Final = 1_048_576
"""Rows of a sheet in Excel, with the header."""


def workbook_files(motion: VideoMotion) -> Iterator[ExportedFile]:
    """One workbook; refused if the video has more rows than a sheet takes."""
    if len(motion.rows) >= MAX_ROWS:
        why = f"{len(motion.rows):,} rows, and a sheet of Excel takes {MAX_ROWS - 1:,}; choose --track main, or csv"
        yield ExportedFile(".xlsx", None, why, is_refused=True)
        return
    yield ExportedFile(".xlsx", bytes_written(lambda path: write_workbook(path, motion), ".xlsx"))


def write_workbook(path: str, motion: VideoMotion) -> None:
    """Write the sheets ``tracks`` and ``motion``. Empty cells are NaN or null."""
    from xlsxwriter import Workbook  # noqa: PLC0415 - an optional extra

    with Workbook(path, {"constant_memory": True, "strings_to_urls": False}) as book:
        bold = book.add_format({"bold": True})
        for name, table in (("tracks", motion.tracks), ("motion", motion.rows)):
            sheet = book.add_worksheet(name)
            sheet.freeze_panes(1, 0)
            _write_sheet(sheet, table, bold)


def _write_sheet(sheet: Any, table: pd.DataFrame, bold: Any) -> None:
    for column, heading in enumerate(table.columns):
        sheet.write_string(0, column, heading, bold)
    columns = [table[name].astype(object).tolist() for name in table.columns]
    for row, values in enumerate(zip(*columns, strict=True), 1):
        for column, value in enumerate(values):
            _write_cell(sheet, row, column, value)


def _write_cell(sheet: Any, row: int, column: int, value: Any) -> None:
    if isinstance(value, str):  # never a formula, whatever it begins with
        sheet.write_string(row, column, value)
    elif isinstance(value, bool):
        sheet.write_boolean(row, column, value)
    elif isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        sheet.write_number(row, column, value)
