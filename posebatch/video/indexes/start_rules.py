"""Can decoding start at this packet, so that all frames presented from it on are those of a decode from the beginning?

A container's keyframe flag may be wrong, so the answer comes from the packet itself. The syntax is that of H.264 (ITU-T
H.264, 7.3 and D.1.8), HEVC (ITU-T H.265, 7.3), VP9 (its bitstream specification, 6.2), AV1 (its
bitstream specification, 5.3 to 5.9), MPEG-2 (ITU-T H.262, 6.2) and JPEG (ITU-T T.81, B).

Two codecs are left out, because traces of damage depend on what was decoded before, without any sign: VP8, and MPEG-4,
of which FFmpeg counts the pictures that end regularly, and judges others by the count.

Parameter sets and tables stay in force beyond the packet that has them. A start must bring all of them, unless the
stream's header has them. A stream that changes them has no further start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from posebatch.video.packet_kinds import H264_IDR, H264_SLICES, HEVC_IRAP, HEVC_SLICES

H264_SEI, H264_PARAMETER_SETS = 6, (7, 8)
RECOVERY_POINT: Final = 6
H264_I_SLICES: Final = (2, 4, 7, 9)
HEVC_IDR_ALONE: Final = 20
"""An IDR picture that no other picture precedes in presentation (IDR_N_LP)."""
HEVC_PARAMETER_SETS: Final = (32, 33, 34)
START_CODE: Final = b"\x00\x00\x01"
MPEG2_PICTURE, MPEG2_SEQUENCE = START_CODE + b"\x00", START_CODE + b"\xb3"
MPEG2_SIZE_BYTES: Final = 8
"""The start code of a sequence header, size, aspect ratio and frame rate."""
AV1_SEQUENCE, AV1_FRAME_HEADER, AV1_FRAME = 1, 3, 6
JPEG_TABLES: Final = {0xC4: b"DHT", 0xDB: b"DQT", 0xDD: b"DRI"}
JPEG_SCAN: Final = 0xDA


@dataclass(frozen=True)
class PacketFacts:
    """What a packet's content says."""

    can_start: bool = False
    """It begins with a picture from which on decoding needs no earlier picture."""
    is_closed: bool = True
    """Frames that follow it in the file are presented after it."""
    sets: frozenset[bytes] = frozenset()
    """Parameter sets or tables in it."""


Reader = Callable[[bytes], PacketFacts]


def reader_of(codec: str, header: bytes) -> Reader | None:
    """A function that reads the packets of a codec; None for a codec of which nothing is known.

    ``header`` is the stream's out-of-band header, empty where there is none.
    """
    if codec == "h264":
        return partial(_h264, length_size=(header[4] & 3) + 1 if len(header) > 4 and header[0] == 1 else 0)
    if codec == "hevc":
        return partial(_hevc, length_size=(header[21] & 3) + 1 if len(header) > 21 and header[0] == 1 else 0)
    readers: dict[str, Reader] = {
        "vp9": _vp9,
        "av1": _av1,
        "mpeg2video": _mpeg2,
        "mjpeg": _mjpeg,
    }
    return readers.get(codec)


def sets_in_header(codec: str, header: bytes) -> frozenset[bytes]:
    """The parameter sets of a stream's out-of-band header."""
    if codec == "h264" and header[:1] == b"\x01":
        return frozenset(_listed_sets(header, 5))
    if codec == "hevc" and header[:1] == b"\x01":
        return frozenset(_hevc_sets(header))
    if codec == "av1" and header[:1] == b"\x81":
        return _av1(header[4:]).sets
    reader = reader_of(codec, header)
    return reader(header).sets if reader and header else frozenset()


class StartFinder:
    """Finds the packets at which decoding can start. Takes all packets of a stream in file order."""

    def __init__(self, reader: Reader, header_sets: frozenset[bytes]) -> None:
        self._reader, self._known, self._header_sets = reader, header_sets, header_sets
        self._seen: frozenset[bytes] = frozenset()
        self.is_changed = False
        """The stream has changed its parameters."""

    def facts(self, content: bytes) -> PacketFacts:
        """The facts of the next packet; ``can_start`` also means that the decoder has all parameter sets there."""
        facts = self._reader(content)
        if facts.sets:
            self._known = self._known or facts.sets
            self.is_changed = self.is_changed or not facts.sets <= self._known
            self._seen |= facts.sets
        can_start = facts.can_start and (self._seen <= self._header_sets or self._seen <= facts.sets)
        return replace(facts, can_start=can_start)


def _units(content: bytes, length_size: int) -> list[bytes]:
    """The NAL units of a packet; none when their lengths do not add up."""
    if not length_size:
        stripped = (unit.rstrip(b"\x00") for unit in content.split(START_CODE)[1:])
        return [unit for unit in stripped if len(unit) > 1]
    units, end = [], 0
    while end < len(content):
        begin = end + length_size
        end = begin + int.from_bytes(content[end:begin], "big")
        if end < begin + 2 or end > len(content):
            return []
        units.append(content[begin:end])
    return units


def _h264(content: bytes, length_size: int) -> PacketFacts:
    units = _units(content, length_size)
    slices = [unit for unit in units if unit[0] & 31 in H264_SLICES]
    sets = frozenset(unit for unit in units if unit[0] & 31 in H264_PARAMETER_SETS)
    if not slices:
        return PacketFacts(sets=sets)
    is_idr = all(unit[0] & 31 == H264_IDR for unit in slices)
    is_recovery = not is_idr and any(unit[0] & 31 == H264_SEI and _recovers_at_once(unit[1:]) for unit in units)
    is_intra = is_recovery and all(_slice_type(unit) in H264_I_SLICES for unit in slices)
    return PacketFacts(is_idr or is_intra, is_closed=is_idr, sets=sets)


def _slice_type(unit: bytes) -> int:
    bits = _Bits(unit[1:16].replace(b"\x00\x00\x03", b"\x00\x00"))
    bits.unsigned_golomb()  # first_mb_in_slice
    return bits.unsigned_golomb()


def _recovers_at_once(messages: bytes) -> bool:
    """Whether one of the SEI messages is a recovery point without a delay, and exact."""
    messages, at = messages.replace(b"\x00\x00\x03", b"\x00\x00"), 0
    while at + 2 < len(messages):
        values = []
        for _ in range(2):  # type and size, each in bytes that are added up to the first below 255
            value = 0
            while at < len(messages) and messages[at] == 0xFF:
                value, at = value + 0xFF, at + 1
            if at >= len(messages):
                return False
            values.append(value + messages[at])
            at += 1
        kind, size = values
        if kind == RECOVERY_POINT:
            bits = _Bits(messages[at : at + size])
            return bits.unsigned_golomb() == 0 and bits.take(1) == 1
        at += size
    return False


def _hevc(content: bytes, length_size: int) -> PacketFacts:
    units = [unit for unit in _units(content, length_size) if len(unit) > 2 and not (unit[0] & 1 or unit[1] >> 3)]
    kinds = [unit[0] >> 1 & 63 for unit in units]
    slices = [(kind, unit) for kind, unit in zip(kinds, units, strict=True) if kind in HEVC_SLICES]
    sets = frozenset(unit for kind, unit in zip(kinds, units, strict=True) if kind in HEVC_PARAMETER_SETS)
    # no_output_of_prior_pics_flag, the second bit: the decoder drops frames that it holds
    can_start = bool(slices) and all(kind in HEVC_IRAP and not unit[2] >> 6 & 1 for kind, unit in slices)
    return PacketFacts(can_start, is_closed=all(kind == HEVC_IDR_ALONE for kind, _ in slices), sets=sets)


def _listed_sets(header: bytes, at: int) -> Iterator[bytes]:
    """The parameter sets of avcC, from the byte with the number of sequence parameter sets on."""
    for mask in (31, 255):
        count = header[at] & mask if at < len(header) else 0
        at += 1
        for _ in range(count):
            size = int.from_bytes(header[at : at + 2], "big")
            yield header[at + 2 : at + 2 + size]
            at += 2 + size


def _hevc_sets(header: bytes) -> Iterator[bytes]:
    """The parameter sets of hvcC."""
    at = 23
    for _ in range(header[22] if len(header) > 22 else 0):
        count = int.from_bytes(header[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            size = int.from_bytes(header[at : at + 2], "big")
            yield header[at + 2 : at + 2 + size]
            at += 2 + size


def _vp9(content: bytes) -> PacketFacts:
    bits = _Bits(content[:2])
    marker, profile = bits.take(2), bits.take(1) + 2 * bits.take(1)
    if profile == 3:
        bits.take(1)
    shows_existing, is_inter = bits.take(1), bits.take(1)
    return PacketFacts(marker == 2 and not shows_existing and not is_inter)


def _av1(content: bytes) -> PacketFacts:
    sets: list[bytes] = []
    at, first_frame = 0, -1
    while at < len(content):
        kind, has_extension, has_size = content[at] >> 3 & 15, content[at] >> 2 & 1, content[at] >> 1 & 1
        at += 1 + has_extension
        size, shift = (0, 0) if has_size else (len(content) - at, -1)
        while shift >= 0 and at < len(content):
            size |= (content[at] & 127) << shift
            shift = shift + 7 if content[at] & 128 else -1
            at += 1
        if kind == AV1_SEQUENCE:
            sets.append(content[at : at + size])
        elif kind in (AV1_FRAME_HEADER, AV1_FRAME) and first_frame < 0 and at < len(content):
            first_frame = content[at] >> 4  # show_existing_frame, frame_type (2 bits), show_frame
        at += size
    return PacketFacts(first_frame == 0b0001, sets=frozenset(sets))


def _mpeg2(content: bytes) -> PacketFacts:
    sequence, picture = content.find(MPEG2_SEQUENCE), content.find(MPEG2_PICTURE)
    sets = frozenset([content[sequence : sequence + MPEG2_SIZE_BYTES]] if sequence >= 0 else [])
    is_intra = 0 <= picture < len(content) - 5 and content[picture + 5] >> 3 & 7 == 1
    return PacketFacts(is_intra and 0 <= sequence < picture, is_closed=False, sets=sets)


def _mjpeg(content: bytes) -> PacketFacts:
    at, sets = 2, set()
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != JPEG_SCAN:
        sets.add(JPEG_TABLES.get(content[at + 1], b""))
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    is_picture = at + 4 <= len(content) and content[at] == 0xFF
    return PacketFacts(is_picture, sets=frozenset(sets - {b""}))


class _Bits:
    """Reads bits from the first on; behind the last one all are zero."""

    def __init__(self, content: bytes) -> None:
        self._value, self._left = int.from_bytes(content, "big"), 8 * len(content)

    def take(self, count: int) -> int:
        """The next ``count`` bits as a number."""
        self._left -= count
        return (self._value >> self._left if self._left >= 0 else 0) & ((1 << count) - 1)

    def unsigned_golomb(self) -> int:
        """The next ue(v), ITU-T H.264, 9.1; -1 where none ends."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if self._left <= 0:
                return -1
        return (1 << zeros) - 1 + self.take(zeros)
