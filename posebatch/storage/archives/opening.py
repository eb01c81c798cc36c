"""List an archive, and open one of its members."""

from __future__ import annotations

import io
from typing import IO, Final

from posebatch.core.errors import ArchiveError, ObjectNotFoundError
from posebatch.storage.archives.members import (
    NOT_SEEKABLE,
    NOT_SEEKABLE_ADVICE,
    WHOLE,
    ArchiveListing,
    MemberSource,
)
from posebatch.storage.archives.tar_members import list_tar, open_tar_member
from posebatch.storage.archives.zip_members import list_zip, open_zip_member

LISTING_READ_AHEAD_BYTES: Final = 16 << 10
"""Bytes of one ranged read while a TAR archive is listed: a header, and small files beside the videos."""


def list_archive(file: IO[bytes], uri: str) -> ArchiveListing:
    """The files in an archive. Raises `ArchiveError` if its kind is not read, or if it is damaged."""
    name = uri.lower()
    if name.endswith(NOT_SEEKABLE):
        raise ArchiveError(f"{uri}: {NOT_SEEKABLE_ADVICE}")
    return list_tar(file, uri) if name.endswith(".tar") else list_zip(file, file.seek(0, io.SEEK_END), uri)


def open_member(file: IO[bytes], source: MemberSource, uri: str) -> IO[bytes]:
    """A member of the open archive ``file``, which the member closes. Raises `ArchiveError` if it cannot be read.

    An archive that could not be listed is listed again, so that this raises the reason.
    """
    try:
        if source.location == WHOLE:
            list_archive(file, uri)
            raise ObjectNotFoundError(
                f"{uri}: the archive could not be listed when this run began, and can be now; the next run takes its "
                "members"
            )
        if source.location.kind == "sparse":
            raise ArchiveError(f"{uri}: stored with gaps (a sparse file); unpack it, or pack it without --sparse")
        if source.location.kind == "zip":
            return open_zip_member(file, source, uri)
        return open_tar_member(file, source)
    except BaseException:
        file.close()
        raise
