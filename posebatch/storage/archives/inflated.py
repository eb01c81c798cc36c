"""Deflated members: they cannot be read by ranges, so they are unpacked into a temporary file.

Each segment of a video opens its source. A process therefore keeps the members that it unpacked last.
"""

from __future__ import annotations

import io
import os
import tempfile
import threading
import zlib
from collections import OrderedDict
from typing import IO, Final

from typing_extensions import override

from posebatch.core.errors import ArchiveError
from posebatch.storage.archives.members import MemberSource
from posebatch.storage.disk_errors import translated_disk_errors
from posebatch.storage.ranged_file import RangedFile

MAX_INFLATED_BYTES: Final = 4 << 30
"""Larger members are refused: they would fill the disk of a worker."""


KEPT: Final = 2
"""Unpacked members that a process keeps: a worker has two segments at a time."""


_BLOCK_BYTES: Final = 1 << 20


_kept: OrderedDict[MemberSource, IO[bytes]] = OrderedDict()
_lock = threading.Lock()


class _SharedFile(RangedFile):
    """A file that several readers share; each has its own position."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        super().__init__(size)
        self._file = file  # its disk space is freed with the last reader

    @override
    def read_range(self, first: int, last: int) -> bytes:
        return os.pread(self._file.fileno(), last - first + 1, first)


def inflated(packed: RangedFile, size: int, crc: int, uri: str, source: MemberSource) -> IO[bytes]:
    """A deflated member, unpacked; closes ``packed``.

    ``size`` and ``crc`` are those of the unpacked bytes. Raises `ArchiveError` if they differ, and
    `StorageUnavailableError` when the disk is full.
    """
    with packed:
        with _lock:
            file = _kept.get(source)
            if file is not None:
                _kept.move_to_end(source)
        if file is None:
            with translated_disk_errors(tempfile.gettempdir()):
                file = tempfile.TemporaryFile()  # noqa: SIM115 - closed when its last reader is gone
                _inflate(packed, file, size, crc, uri)
            with _lock:
                _kept[source] = file
                while len(_kept) > KEPT:
                    _kept.popitem(last=False)
    return io.BufferedReader(_SharedFile(file, size))


def _inflate(packed: RangedFile, file: IO[bytes], size: int, crc: int, uri: str) -> None:
    inflater, found_size, found_crc = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
    try:
        while not inflater.eof:
            block = inflater.unconsumed_tail or packed.read(_BLOCK_BYTES)
            content = inflater.decompress(block, _BLOCK_BYTES)
            found_size, found_crc = found_size + len(content), zlib.crc32(content, found_crc)
            if found_size > size or (not block and not content):
                break
            file.write(content)
    except zlib.error as error:
        raise ArchiveError(f"{uri}: the archive is damaged: the member cannot be unpacked ({error})") from error
    if (found_size, found_crc) != (size, crc):
        raise ArchiveError(f"{uri}: the archive is damaged: the unpacked member has another size or CRC-32")
    file.flush()
