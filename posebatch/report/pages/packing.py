"""Arrays in a page: whole numbers as differences, compressed, as text. ``player.js`` unpacks them."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

UNKNOWN: Final = -32768
"""The 16-bit number that stands for NaN."""


MOST: Final = 32767


_UNSIGNED: Final[dict[int, Any]] = {2: np.uint16, 4: np.uint32}


def quantised(values: NDArray[np.floating[Any]], unit: float) -> NDArray[np.int16]:
    """Values as multiples of ``unit``, within 16 bits; NaN becomes `UNKNOWN`."""
    known = ~np.isnan(values)
    numbers = np.full(values.shape, UNKNOWN, np.int16)
    numbers[known] = np.clip(np.rint(values[known] / unit), -MOST, MOST).astype(np.int16)
    return numbers


def carried(values: NDArray[np.floating[Any]], known: NDArray[np.bool_]) -> NDArray[np.floating[Any]]:
    """Columns (rows, columns) with the last known value in place of those that are not ``known``; 0 before the first.

    Such places are never shown. A constant costs no bytes.
    """
    last = np.maximum.accumulate(np.where(known, np.arange(len(values))[:, None], -1), axis=0)
    filled: NDArray[np.floating[Any]] = np.take_along_axis(values, np.maximum(last, 0), axis=0)
    return np.where(last >= 0, filled, 0)


def packed(columns: NDArray[np.int16] | NDArray[np.int32]) -> bytes:
    """Columns (rows, columns) as compressed bytes: column by column, differences of neighbours modulo the word.

    All lowest bytes come first and all highest ones last, which are nearly all alike.
    """
    words = np.ascontiguousarray(columns.T).view(_UNSIGNED[columns.itemsize])
    differences = np.diff(words, axis=1, prepend=words.dtype.type(0)).ravel()
    planes = [(differences >> (8 * plane) & 0xFF).astype(np.uint8).tobytes() for plane in range(columns.itemsize)]
    return zlib.compress(b"".join(planes), 6)


def packed_json(value: Any) -> str:
    """A value as compressed JSON in base64: a long list costs a page a tenth of its length."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64_text(zlib.compress(text.encode("utf-8", "backslashreplace"), 9))


def base64_text(content: bytes) -> str:
    """Bytes as text that no parser of HTML takes for a tag."""
    return base64.b64encode(content).decode()


def script_json(value: Any) -> str:
    """A value as JSON that may stand in a ``<script>`` element: no character in it can end the element.

    >>> script_json("</script>")
    '"\\\\u003c/script\\\\u003e"'
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII only
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
