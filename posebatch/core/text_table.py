"""Tables as plain text."""

from __future__ import annotations

import math
from collections.abc import Sequence


def text_table(headings: Sequence[str], rows: Sequence[Sequence[str]], alignment: str = "") -> str:
    """The lines of a table, columns separated by two spaces.

    ``alignment`` has one character for each column, ``<`` for left or ``>`` for right. By default the first column is
    aligned left and the others, which mostly hold numbers, right. Raises ``ValueError`` when a row or the alignment has
    another number of columns than the headings::

        >>> print(text_table(["network", "AP"], [["small", "0.45"], ["large", "0.7"]]))
        network    AP
        small    0.45
        large     0.7
    """
    lines = [headings, *rows]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    aligned = alignment or "<" + ">" * (len(headings) - 1)
    columns = list(zip(aligned, widths, strict=True))
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, (side, width) in zip(line, columns, strict=True)).rstrip()
        for line in lines
    )


def number_text(value: float, digits: int, unit: str = "") -> str:
    """A number with its unit; ``-`` for nan."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}{unit}"
