"""One file of an export, and the bytes of libraries that write to a path only."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ExportedFile:
    """One file of a video."""

    suffix: str
    """What follows the output path of the video, as in ``.track0.trc``."""
    content: bytes | None
    """None if the file cannot be made; the note says why."""
    note: str = ""
    """What the user should know about it, such as an assumed height."""
    is_refused: bool = False
    """Whether the video has it, and only the format cannot take it."""


def bytes_written(write: Callable[[str], object], suffix: str) -> bytes:
    """The bytes of the file that ``write`` makes at the path it is given, which ends in ``suffix``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"export{suffix}")
        write(str(path))
        return path.read_bytes()
