"""What a packet's bytes say of its frame: whether decoding can start there, and whether other frames need it.

Read from the standards' headers: H.264 (ITU-T H.264, 7.3.1), HEVC (ITU-T H.265, 7.3.1.2 and 7.4.2.2) and MPEG-4
(ISO/IEC 14496-2, 6.2.5). Whatever cannot be read counts as needed by others and as no place to start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final


@dataclass(frozen=True)
class PacketKind:
    """A packet's part in the decoding of others."""

    can_start: bool
    """It and all that is shown after it can be decoded without what comes before it."""
    is_reference: bool
    """Other frames may be built on its frame."""


UNREADABLE: Final = PacketKind(can_start=False, is_reference=True)


SELF_CONTAINED_KEYFRAMES: Final = frozenset({"av1", "dnxhd", "mjpeg", "mpeg2video", "prores", "vp8", "vp9"})
"""Codecs whose every keyframe is a place to start, and of whose other frames we do not tell who needs them."""


H264_SLICES: Final = range(1, 6)


H264_IDR: Final = 5


HEVC_SLICES: Final = range(32)


HEVC_IRAP: Final = range(16, 22)


MPEG4_FRAME: Final = b"\x00\x00\x01\xb6"


MPEG4_I, MPEG4_B = 0, 2


KindOf = Callable[[bytes, bool], PacketKind]
"""From a packet's bytes, and whether its container calls it a keyframe."""


def kind_reader(codec: str, header: bytes) -> KindOf | None:
    """How to read a stream's packets; None for a codec that we do not know, or one not packed as in MP4.

    ``header`` is the stream's out-of-band header (avcC, hvcC); empty where there is none.
    """
    if codec == "h264" and len(header) > 4 and header[0] == 1:
        return partial(_h264, length_size=(header[4] & 3) + 1)
    if codec == "hevc" and len(header) > 21 and header[0] == 1:
        return partial(_hevc, length_size=(header[21] & 3) + 1, layers=header[21] >> 3 & 7)
    if codec == "mpeg4":
        return _mpeg4
    return _self_contained if codec in SELF_CONTAINED_KEYFRAMES else None


def _h264(content: bytes, is_keyframe: bool, length_size: int) -> PacketKind:
    slices = [unit[0] for unit in _units(content, length_size) if unit[0] & 31 in H264_SLICES]
    if not slices:
        return UNREADABLE
    idr = is_keyframe and all(first & 31 == H264_IDR for first in slices)
    return PacketKind(idr, is_reference=any(first >> 5 & 3 or first & 31 != 1 for first in slices))


def _hevc(content: bytes, is_keyframe: bool, length_size: int, layers: int) -> PacketKind:
    """A picture that its own temporal layer does not need may serve a higher one, so only the highest has idle ones."""
    slices = []
    for unit in _units(content, length_size):
        kind, layer, temporal_layer = unit[0] >> 1 & 63, (unit[0] & 1) << 5 | unit[1] >> 3, (unit[1] & 7) - 1
        if kind in HEVC_SLICES and layer == 0:
            slices.append((kind, temporal_layer))
    if not slices:
        return UNREADABLE
    irap = is_keyframe and all(kind in HEVC_IRAP for kind, _ in slices)
    idle = all(kind < 16 and kind % 2 == 0 and temporal_layer == layers - 1 for kind, temporal_layer in slices)
    return PacketKind(irap, is_reference=not idle)


def _mpeg4(content: bytes, is_keyframe: bool) -> PacketKind:
    at = content.find(MPEG4_FRAME) + len(MPEG4_FRAME)
    if content.count(MPEG4_FRAME) != 1 or at >= len(content):
        return UNREADABLE
    coding = content[at] >> 6
    return PacketKind(is_keyframe and coding == MPEG4_I, is_reference=coding != MPEG4_B)


def _self_contained(content: bytes, is_keyframe: bool) -> PacketKind:
    return PacketKind(can_start=is_keyframe, is_reference=True)


def _units(content: bytes, length_size: int) -> list[bytes]:
    """The first two bytes of each unit of a packet; none when the lengths do not add up."""
    heads: list[bytes] = []
    at = 0
    while at < len(content):
        begin = at + length_size
        at = begin + int.from_bytes(content[at:begin], "big")
        if at < begin + 2 or at > len(content):
            return []
        heads.append(content[begin : begin + 2])
    return heads
