"""Read from a packet's header: can decoding start here, and do other frames need this one?

The headers are those of H.264 (ITU-T H.264, 7.3.1), HEVC (ITU-T H.265, 7.3.1.2 and 7.4.2.2) and MPEG-4 (ISO/IEC
14496-2, 6.2.5). A packet that cannot be read counts as needed, and not as a place to start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final


@dataclass(frozen=True)
class PacketKind:
    """A packet's role in the decoding of others."""

    can_start: bool
    """This frame, and all frames presented after it, can be decoded without any earlier packet."""
    is_reference: bool
    """Other frames may be predicted from this one."""
    shows_picture: bool = True
    """Not only parameter sets, delimiters or messages (SEI)."""


UNREADABLE: Final = PacketKind(can_start=False, is_reference=True)


SELF_CONTAINED_KEYFRAMES: Final = frozenset({"av1", "dnxhd", "mjpeg", "mpeg2video", "prores", "vp8", "vp9"})
"""Codecs in which decoding can start at every keyframe. All their frames count as needed by others."""


H264_SLICES: Final = range(1, 6)


H264_IDR: Final = 5


HEVC_SLICES: Final = range(32)


HEVC_IRAP: Final = range(16, 22)


MPEG4_FRAME: Final = b"\x00\x00\x01\xb6"


MPEG4_I, MPEG4_B = 0, 2


KindOf = Callable[[bytes, bool], PacketKind]
"""The kind of a packet, from its bytes and the container's keyframe flag."""


def kind_reader(codec: str, header: bytes) -> KindOf | None:
    """A function that reads the kinds of a stream's packets; None for an unknown codec, or one not packed as in MP4.

    ``header`` is the stream's out-of-band header (avcC, hvcC), empty where there is none.
    """
    if codec == "h264" and len(header) > 4 and header[0] == 1:
        return partial(_h264, length_size=(header[4] & 3) + 1)
    if codec == "hevc" and len(header) > 21 and header[0] == 1:
        return partial(_hevc, length_size=(header[21] & 3) + 1, layers=header[21] >> 3 & 7)
    if codec == "mpeg4":
        return _mpeg4
    return _self_contained if codec in SELF_CONTAINED_KEYFRAMES else None


def _h264(content: bytes, is_keyframe: bool, length_size: int) -> PacketKind:
    units = _nal_headers(content, length_size)
    slices = [unit[0] for unit in units if unit[0] & 31 in H264_SLICES]
    if not slices:
        return replace(UNREADABLE, shows_picture=not units)
    idr = is_keyframe and all(first & 31 == H264_IDR for first in slices)
    return PacketKind(idr, is_reference=any(first >> 5 & 3 or first & 31 != 1 for first in slices))


def _hevc(content: bytes, is_keyframe: bool, length_size: int, layers: int) -> PacketKind:
    """A sub-layer non-reference picture can still be referenced by higher temporal layers.

    So only those of the highest layer are not needed by others (ITU-T H.265, 7.4.2.2).
    """
    slices, units = [], _nal_headers(content, length_size)
    for unit in units:
        kind, layer, temporal_layer = unit[0] >> 1 & 63, (unit[0] & 1) << 5 | unit[1] >> 3, (unit[1] & 7) - 1
        if kind in HEVC_SLICES and layer == 0:
            slices.append((kind, temporal_layer))
    if not slices:
        return replace(UNREADABLE, shows_picture=not units)
    irap = is_keyframe and all(kind in HEVC_IRAP for kind, _ in slices)
    unneeded = all(kind < 16 and kind % 2 == 0 and temporal_layer == layers - 1 for kind, temporal_layer in slices)
    return PacketKind(irap, is_reference=not unneeded)


def _mpeg4(content: bytes, is_keyframe: bool) -> PacketKind:
    coding_at = content.find(MPEG4_FRAME) + len(MPEG4_FRAME)
    if content.count(MPEG4_FRAME) != 1 or coding_at >= len(content):
        return UNREADABLE
    coding = content[coding_at] >> 6
    can_start, is_reference = is_keyframe and coding == MPEG4_I, coding != MPEG4_B
    return PacketKind(can_start, is_reference, _is_coded_vop(content))


def _self_contained(content: bytes, is_keyframe: bool) -> PacketKind:
    return PacketKind(can_start=is_keyframe, is_reference=True)


def _nal_headers(content: bytes, length_size: int) -> list[bytes]:
    """The first two bytes of each NAL unit of a packet; none when the lengths do not add up."""
    headers: list[bytes] = []
    end = 0
    while end < len(content):
        begin = end + length_size
        end = begin + int.from_bytes(content[end:begin], "big")
        if end < begin + 2 or end > len(content):
            return []
        headers.append(content[begin : begin + 2])
    return headers


ShowsPicture = Callable[[bytes], bool]
"""Whether a packet holds a coded picture that is shown, from its bytes."""


NOT_CODED_VOP_BYTES: Final = 8
"""A VOP of MPEG-4 that is "not coded" has no macroblocks: its header and stuffing are all."""


def picture_test(codec: str, header: bytes) -> ShowsPicture:
    """A function that tells packets with a picture from parameter sets, delimiters, messages and hidden frames.

    ``header`` as for `kind_reader`. Of codecs that it does not know, every packet counts as a picture.
    """
    if codec in ("h264", "hevc"):
        at = 21 if codec == "hevc" else 4
        length_size = (header[at] & 3) + 1 if len(header) > at and header[0] == 1 else None
        return partial(_has_slice, codec=codec, length_size=length_size)
    return {"mpeg4": _is_coded_vop, "vp8": _is_shown_vp8, "vp9": _is_shown_vp9}.get(codec, _is_any)


def _has_slice(content: bytes, codec: str, length_size: int | None) -> bool:
    headers = _nal_headers(content, length_size) if length_size else _annex_b_headers(content)
    if not headers:
        return True  # the packet cannot be read: the decoder decides
    if codec == "h264":
        return any(unit[0] & 31 in H264_SLICES for unit in headers)
    return any(unit[0] >> 1 & 63 in HEVC_SLICES for unit in headers)


def _annex_b_headers(content: bytes) -> list[bytes]:
    """The first two bytes of each unit after a start code."""
    parts = content.split(b"\x00\x00\x01")[1:]
    return [part[:2] for part in parts if part]


def _is_coded_vop(content: bytes) -> bool:
    """Whether a VOP is coded (ISO/IEC 14496-2, 6.2.5, ``vop_coded``), judged by its size."""
    at = content.rfind(MPEG4_FRAME)
    return at < 0 or len(content) - at > NOT_CODED_VOP_BYTES


def _is_shown_vp8(content: bytes) -> bool:
    """``show_frame`` of the frame tag (RFC 6386, 9.1)."""
    return not content or bool(content[0] >> 4 & 1)


def _is_shown_vp9(content: bytes) -> bool:
    """``show_existing_frame`` or ``show_frame`` of the uncompressed header; a superframe shows its last frame."""
    if not content or content[-1] >> 5 == 0b110 or content[0] >> 6 != 0b10:
        return True
    reserved = content[0] >> 4 & 3 == 3  # profile 3 has one more bit
    bits = content[0] << 1 if reserved else content[0]
    return bool(bits >> 3 & 1) or bool(bits >> 1 & 1)


def _is_any(_: bytes) -> bool:
    return True
