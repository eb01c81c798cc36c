"""ZIP archives: the central directory lists the members; a stored member is a byte range."""

from __future__ import annotations

import stat
import struct
import zipfile
from typing import IO, Final

from typing_extensions import override

from posebatch.core.errors import ArchiveError
from posebatch.storage.archives.inflated import MAX_INFLATED_BYTES, inflated
from posebatch.storage.archives.members import ArchiveListing, Location, MemberSource
from posebatch.storage.ranged_file import ByteRange, RangedFile

TAIL_BYTES: Final = 128 << 10
"""Bytes at the end that are read first: the central directory of about 1,000 members, and a comment of any length."""


MAX_DIRECTORY_BYTES: Final = 256 << 20
"""Larger central directories are refused: more than a million members, or a damaged size."""


_ENCRYPTED: Final = 0x41
"""Bits of the flags: encrypted, and strongly encrypted."""


_LOCAL_HEADER: Final = struct.Struct("<4s2xHH16xHH")
"""Signature, flags, method, length of the name and of the extra field."""


_REPACK: Final = "pack it again without compression: zip -0"


class _TailFirst(RangedFile):
    """A file whose last bytes are read once: readers of a directory look there several times."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        super().__init__(size)
        self._file, self._tail_start = file, max(0, size - TAIL_BYTES)
        file.seek(self._tail_start)
        self._tail = file.read(TAIL_BYTES)

    @override
    def read_range(self, first: int, last: int) -> bytes:
        if first >= self._tail_start:
            return self._tail[first - self._tail_start : last - self._tail_start + 1]
        if last - first >= MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"its directory takes more than {MAX_DIRECTORY_BYTES >> 20} MB")
        self._file.seek(first)
        return self._file.read(last - first + 1)


def list_zip(file: IO[bytes], size: int, uri: str) -> ArchiveListing:
    """The files in a ZIP archive of ``size`` bytes. Raises `ArchiveError` if its directory cannot be read."""
    listing = ArchiveListing()
    try:
        with zipfile.ZipFile(_TailFirst(file, size)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, LookupError, ArithmeticError) as error:
        raise ArchiveError(
            f"{uri}: its directory cannot be read ({error}): it is damaged, incomplete, or no ZIP archive"
        ) from error
    for entry in entries:
        if entry.is_dir():
            continue
        if entry.create_system == 3 and stat.S_ISLNK(entry.external_attr >> 16):
            listing.left_out["link in an archive"] += 1
            continue
        place = (entry.compress_type, entry.flag_bits, entry.header_offset)
        sizes = (entry.compress_size, entry.file_size, entry.CRC)
        listing.add(entry.filename, Location("zip", (*place, *sizes)), entry.file_size)
    return listing


def open_zip_member(file: IO[bytes], source: MemberSource, uri: str) -> IO[bytes]:
    """A member of the open archive ``file``, which the member closes.

    Raises `ArchiveError` if it is encrypted, compressed by a method other than deflate, too large to be unpacked, or
    damaged.
    """
    method, flags, offset, packed, unpacked, crc = source.location.numbers
    if flags & _ENCRYPTED:
        raise ArchiveError(f"{uri}: encrypted with a password; unpack the archive, or pack it again without one")
    if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        name = zipfile.compressor_names.get(method, f"method {method}")  # type: ignore[attr-defined]
        raise ArchiveError(f"{uri}: compressed by {name}, which is not read; {_REPACK}")
    if method == zipfile.ZIP_DEFLATED and unpacked > MAX_INFLATED_BYTES:
        raise ArchiveError(
            f"{uri}: compressed, and with {unpacked / 1e9:.1f} GB larger than the {MAX_INFLATED_BYTES / 1e9:.1f} GB "
            f"that are unpacked at most; {_REPACK}"
        )
    start = _start_of_data(file, offset, method, uri)
    if method == zipfile.ZIP_DEFLATED:
        return inflated(ByteRange(file, start, packed), unpacked, crc, uri, source)
    if packed != unpacked:
        raise ArchiveError(f"{uri}: the archive is damaged: a stored member has two sizes, {packed} and {unpacked}")
    return ByteRange(file, start, unpacked)  # type: ignore[return-value]  # a raw file


def _start_of_data(file: IO[bytes], offset: int, method: int, uri: str) -> int:
    """Where the bytes of a member begin; its local header may be longer than the directory says."""
    file.seek(offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) == _LOCAL_HEADER.size:
        signature, _, local_method, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        if signature == b"PK\x03\x04" and local_method == method:
            return offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    raise ArchiveError(f"{uri}: the archive is damaged: its directory does not lead to this member")
