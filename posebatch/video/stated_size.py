"""The size that a file states of itself: a file with fewer bytes was cut off.

Without this a cut file looks whole: FFmpeg reports the end of such a file as the end of the video.
"""

from __future__ import annotations

from typing import Final

EBML_HEADER: Final = bytes.fromhex("1a45dfa3")
SEGMENT: Final = bytes.fromhex("18538067")

ASF_HEADER: Final = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_FILE_PROPERTIES: Final = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")

SLACK_BYTES: Final = 1024
"""A file may lack so many bytes: some writers count a header twice."""


def missing_bytes(head: bytes, size: int) -> int:
    """Bytes that a file of ``size`` bytes lacks; 0 if it is whole, and for formats that do not state their size.

    ``head``: the first bytes of the file, a few kilobytes. The size is stated by Matroska and WebM (RFC 8794: the size
    of the element Segment), AVI (the size of the first RIFF chunk), and ASF (File Size in the File Properties Object).
    """
    stated = _stated_size(head)
    missing = 0 if stated is None else stated - size
    return missing if missing > SLACK_BYTES else 0


def _stated_size(head: bytes) -> int | None:
    if head.startswith(EBML_HEADER):
        return _matroska(head)
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        size = int.from_bytes(head[4:8], "little")
        return None if size in (0, 0xFFFFFFFF) else 8 + size  # a recorder that was not stopped leaves 0
    if head.startswith(ASF_HEADER):
        return _asf(head)
    return None


def _matroska(head: bytes) -> int | None:
    """The end of the segment that follows the EBML header; None where its size is not known."""
    at = len(EBML_HEADER)
    header = _vint(head, at)
    if header is None:
        return None
    at = header[1] + header[0]
    if head[at : at + len(SEGMENT)] != SEGMENT:
        return None
    segment = _vint(head, at + len(SEGMENT))
    return None if segment is None else segment[1] + segment[0]


def _vint(head: bytes, at: int) -> tuple[int, int] | None:
    """A size of EBML and the position after it; None for an unknown size and beyond the end of ``head``."""
    if at >= len(head) or not head[at]:
        return None
    length = 9 - head[at].bit_length()
    if at + length > len(head):
        return None
    ones = (1 << 7 * length) - 1
    value = int.from_bytes(head[at : at + length], "big") & ones
    return None if value == ones else (value, at + length)


def _asf(head: bytes) -> int | None:
    at = head.find(ASF_FILE_PROPERTIES)
    if at < 0 or at + 48 > len(head):
        return None
    return int.from_bytes(head[at + 40 : at + 48], "little") or None  # 0 in a broadcast
