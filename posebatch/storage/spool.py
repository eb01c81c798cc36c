"""Temporary files: in memory while small, on disk when large."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass
from posebatch.storage.local import translated_disk_errors

SPOOL_BYTES = 16 << 20
"""What is put and larger than this should wait on the disk, not in memory, while it is made."""


@contextlib.contextmanager
def spooled() -> Iterator[tempfile.SpooledTemporaryFile[bytes]]:
    """A temporary file to make in it what is to be put; in memory up to `SPOOL_BYTES`.

    Raises `StorageUnavailableError` when its disk is full: that is no fault of what is written.
    """
    with translated_disk_errors(tempfile.gettempdir()), tempfile.SpooledTemporaryFile(SPOOL_BYTES) as file:
        yield file
