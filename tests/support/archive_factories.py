"""Archives with known members, sound ones and odd ones."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Mapping


def zip_bytes(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    """A ZIP archive; ``method``: compression of all members."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
        archive.comment = comment
    return sink.getvalue()


class _Unseekable(io.RawIOBase):
    """A sink that cannot seek, as standard output."""

    def __init__(self) -> None:
        self.content = b""

    def writable(self) -> bool:
        return True

    def write(self, block) -> int:  # type: ignore[override]
        self.content += bytes(block)
        return len(block)


def streamed_zip_bytes(members: Mapping[str, bytes]) -> bytes:
    """The same, written to a stream: sizes stand in data descriptors behind the members."""
    sink = _Unseekable()
    with zipfile.ZipFile(sink, "w") as archive:  # type: ignore[arg-type]
        for name, content in members.items():
            archive.writestr(name, content)
    return sink.content


def zip64_bytes(members: Mapping[str, bytes]) -> bytes:
    """The same, with sizes of 64 bits in the local headers."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in members.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(content)
    return sink.getvalue()


def with_flag(archive: bytes, flag: int) -> bytes:
    """A ZIP archive whose directory has a bit set in the flags of every member."""
    at, changed = archive.find(b"PK\x01\x02"), bytearray(archive)
    while at >= 0:
        flags = struct.unpack_from("<H", changed, at + 8)[0]
        struct.pack_into("<H", changed, at + 8, flags | flag)
        at = archive.find(b"PK\x01\x02", at + 4)
    return bytes(changed)


def with_method(archive: bytes, method: int) -> bytes:
    """A ZIP archive whose directory states another compression for every member."""
    at, changed = archive.find(b"PK\x01\x02"), bytearray(archive)
    while at >= 0:
        struct.pack_into("<H", changed, at + 10, method)
        at = archive.find(b"PK\x01\x02", at + 4)
    return bytes(changed)


def tar_bytes(members: Mapping[str, bytes], tar_format: int = tarfile.PAX_FORMAT, mode: str = "w") -> bytes:
    """A TAR archive; ``mode`` may ask for compression."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode=mode, format=tar_format) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            archive.addfile(entry(name, len(content)), io.BytesIO(content))
    return sink.getvalue()


def entry(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """The header of a member of a TAR archive."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info


def tar_of(*entries: tuple[tarfile.TarInfo, bytes], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    """A TAR archive of these headers and contents."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tar_format) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def sparse_tar_bytes(name: str, content: bytes, size: int) -> bytes:
    """A TAR archive in GNU's old format: one member of ``size`` bytes, of which only the first are stored."""
    info = entry(name, len(content), tarfile.GNUTYPE_SPARSE)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (0, len(content))
    header[410:434] = b"%011o\0%011o\0" % (size, 0)
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header) + content + bytes(-len(content) % 512) + bytes(1024)
