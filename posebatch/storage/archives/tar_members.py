"""TAR archives: a header stands before each member; its data is a byte range."""

from __future__ import annotations

import io
import tarfile
from typing import IO, Final

from posebatch.core.errors import ArchiveError, PosebatchError
from posebatch.storage.archives.members import ArchiveListing, Location, MemberSource
from posebatch.storage.ranged_file import ByteRange

MAX_HEADER_BYTES: Final = 16 << 20
"""Longer extended headers are taken for damage."""


class _HeaderReader:
    """The file as `tarfile` reads it. Refuses to read the headers that a damaged size would make gigabytes long."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """Read ``size`` bytes."""
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


def list_tar(file: IO[bytes], uri: str) -> ArchiveListing:
    """The files in a TAR archive: one read of its header for each member.

    Raises `ArchiveError` if a header is damaged, or if the archive ends early.
    """
    listing = ArchiveListing()
    try:
        with tarfile.open(fileobj=_HeaderReader(file), mode="r:", errors="surrogateescape") as archive:  # type: ignore[call-overload]
            end = 0
            while (entry := archive.next()) is not None:
                if archive.offset <= end:
                    raise tarfile.ReadError("a member with a negative size")
                end = archive.offset
                archive.members.clear()  # it would hold every header
                _add(entry, listing)
            _check_end(file, archive.offset)
    except PosebatchError:
        raise
    except (tarfile.TarError, ValueError, LookupError, ArithmeticError, RuntimeError, EOFError, OSError) as error:
        reason = "compressed" if _is_compressed(file) else f"damaged, incomplete, or no TAR archive ({error})"
        raise ArchiveError(f"{uri}: it cannot be listed: it is {reason}") from error
    return listing


def _add(entry: tarfile.TarInfo, listing: ArchiveListing) -> None:
    if entry.issparse():
        listing.add(entry.name, Location("sparse"), entry.size)
    elif entry.isreg():
        listing.add(entry.name, Location("tar", (entry.offset_data, entry.size)), entry.size)
    elif entry.islnk() and (target := listing.members.get(entry.linkname.removeprefix("./"))):
        listing.add(entry.name, target.location, target.size_bytes)
    elif not entry.isdir():
        listing.left_out["link in an archive" if entry.issym() or entry.islnk() else "device in an archive"] += 1


def _check_end(file: IO[bytes], offset: int) -> None:
    """Refuse an archive that goes on after the last readable header: `tarfile` stops there without an error."""
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"the header at byte {offset} is damaged")


def _is_compressed(file: IO[bytes]) -> bool:
    file.seek(0, io.SEEK_SET)
    return file.read(6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))


def open_tar_member(file: IO[bytes], source: MemberSource) -> IO[bytes]:
    """A member of the open archive ``file``, which the member closes."""
    offset, size = source.location.numbers
    return ByteRange(file, offset, size)  # type: ignore[return-value]  # a raw file
