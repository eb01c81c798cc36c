"""Files that are being made: temporary ones, and ones that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from posebatch.storage.disk_errors import translated_disk_errors

SPOOL_BYTES = 16 << 20
"""Larger content waits on the disk, not in memory, until it is complete."""


Write = Callable[[IO[bytes]], object]
"""Writes the whole content into the open file."""


@contextlib.contextmanager
def spooled() -> Iterator[tempfile.SpooledTemporaryFile[bytes]]:
    """A temporary file for content that is put later; in memory up to `SPOOL_BYTES`.

    Raises `StorageUnavailableError` when its disk is full, because another attempt may find room.
    """
    with translated_disk_errors(tempfile.gettempdir()), tempfile.SpooledTemporaryFile(SPOOL_BYTES) as file:
        yield file


@contextlib.contextmanager
def scratch_file(scratch: Path, write: Write) -> Iterator[os.stat_result]:
    """Make a file and sync it to the disk. The block may rename or link it; afterwards it is removed."""
    try:
        with scratch.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        yield scratch.stat()
    finally:
        scratch.unlink(missing_ok=True)


def write_atomically(path: Path, write: Write, scratch: Path | None = None) -> os.stat_result:
    """Write a file beside its place, sync it, and rename it; returns the status of the new file.

    Readers see the old file or the new one, never a part. After an error the old file is still there. ``scratch`` must
    lie on the same file system; by default it is a hidden ``*.part`` file in the same folder. Raises `OSError` and
    the errors of ``write``::

        write_atomically(Path("report.json"), lambda file: file.write(b"{}"))
    """
    if scratch is None:
        scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    with scratch_file(scratch, write) as status:
        scratch.replace(path)
    return status
