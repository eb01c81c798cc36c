"""Members of archives: what a listing says of them, and how the etag of a member says where it lies.

The etag of a member is that of its archive, followed by ``!`` and the member's `Location`. So a member can be opened
without its archive's directory, and it changes whenever the archive does.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from posebatch.storage.addresses import split_member

SEEKABLE: Final = (".zip", ".tar")
"""Extensions of the archives whose members are read by ranges."""


NOT_SEEKABLE: Final = (
    *(".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4"),
    *(".7z", ".rar"),
)
"""Extensions of archives that are compressed as a whole, or of another kind."""


NOT_SEEKABLE_ADVICE: Final = "its members cannot be read by ranges: unpack it, or pack it again as .tar or with zip -0"


def is_archive(key: str) -> bool:
    """Whether a key has the name of an archive, of one that is read or of another."""
    return key.lower().endswith((*SEEKABLE, *NOT_SEEKABLE))


@dataclass(frozen=True)
class Location:
    """Where a member lies in its archive."""

    kind: str
    """``zip``, ``tar``, ``sparse`` for a member that a tar stores with gaps, or ``whole`` for the archive itself."""
    numbers: tuple[int, ...] = ()
    """``zip``: method, flags, offset of the local header, bytes packed, bytes unpacked, CRC-32. ``tar``: offset and
    size of the data, bytes."""

    def etag(self, archive_etag: str) -> str:
        """The etag of the member in this version of its archive."""
        return f"{archive_etag}!{':'.join([self.kind, *map(str, self.numbers)])}"


WHOLE: Final = Location("whole")
"""Of an archive that could not be listed: it fails in place of its members."""


_ETAG: Final = re.compile(r"(?P<archive>.*)!(?P<kind>zip|tar|sparse|whole)(?P<numbers>(?::\d+)*)", re.DOTALL)


@dataclass(frozen=True)
class MemberSource:
    """A member as its address and its etag say it."""

    archive: str
    """Address of the archive."""
    archive_etag: str
    name: str
    """Name within the archive; empty for `WHOLE`."""
    location: Location


def member_source(uri: str, etag: str) -> MemberSource | None:
    """The member that an address and an etag of a listing name; None if they are those of a plain file."""
    found = _ETAG.fullmatch(etag)
    if found is None:
        return None
    location = Location(found["kind"], tuple(int(number) for number in found["numbers"].split(":")[1:]))
    if location == WHOLE and is_archive(uri):
        return MemberSource(uri, found["archive"], "", WHOLE)
    parts = split_member(uri)
    return MemberSource(parts[0], found["archive"], parts[1], location) if parts else None


@dataclass(frozen=True)
class Member:
    """A file in an archive."""

    name: str
    location: Location
    size_bytes: int
    """Unpacked."""


@dataclass
class ArchiveListing:
    """The files in an archive, by name, in the order of the archive."""

    members: dict[str, Member] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    """Number of other entries, by what they are; folders are not counted."""

    def add(self, name: str, location: Location, size_bytes: int) -> None:
        """Add a file. As when an archive is unpacked, the last of several files with one name counts."""
        name = re.sub(r"\A(?:\./+)+", "", name)
        if name in self.members:
            self.left_out["older version of a file in the same archive"] += 1
        self.members[name] = Member(name, location, size_bytes)
