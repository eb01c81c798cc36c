"""Videos with a fault of the field, made from pictures that carry their number."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
from av.stream import Disposition

from support.factories import video_bytes


@dataclass(frozen=True)
class Coded:
    """One coded picture."""

    content: bytes
    pts: int
    """Milliseconds, unless said otherwise."""
    is_keyframe: bool


@dataclass(frozen=True)
class Stream:
    """Coded pictures with all that a container must say of them."""

    pictures: tuple[Coded, ...]
    header: bytes
    width: int
    height: int

    def with_times(self, milliseconds: Sequence[int]) -> Stream:
        """The same pictures, shown at other times."""
        return replace(
            self, pictures=tuple(replace(one, pts=pts) for one, pts in zip(self.pictures, milliseconds, strict=True))
        )


def coded_stream(**wanted: Any) -> Stream:
    """The coded pictures of `support.factories.video_bytes`, without B-frames, at their times in milliseconds."""
    with av.open(io.BytesIO(video_bytes(**wanted))) as container:
        stream = container.streams.video[0]
        pictures = tuple(
            Coded(bytes(packet), round(packet.pts * stream.time_base * 1000), packet.is_keyframe)
            for packet in container.demux(stream)
            if packet.size
        )
        return Stream(pictures, stream.codec_context.extradata or b"", stream.width, stream.height)


def matroska(stream: Stream, frame_ms: int = 40) -> bytes:
    """A Matroska file of H.264 with the times that the pictures state, in any order: each has a cluster of its own."""
    video = _element(0xB0, _number(stream.width)) + _element(0xBA, _number(stream.height))
    track = (
        _element(0xD7, _number(1))
        + _element(0x73C5, _number(1))
        + _element(0x83, _number(1))
        + _element(0x86, b"V_MPEG4/ISO/AVC")
        + _element(0x63A2, stream.header)
        + _element(0x23E383, _number(frame_ms * 1_000_000))
        + _element(0xE0, video)
    )
    clusters = b"".join(
        _element(0x1F43B675, _element(0xE7, _number(picture.pts)) + _element(0xA3, _block(picture)))
        for picture in stream.pictures
    )
    info = _element(0x1549A966, _element(0x2AD7B1, _number(1_000_000)))
    head = _element(0x1A45DFA3, _element(0x4282, b"matroska") + _element(0x4287, _number(4)))
    return head + _element(0x18538067, info + _element(0x1654AE6B, _element(0xAE, track)) + clusters)


def with_changed_size(frames: int = 20) -> Stream:
    """H.264 whose pictures become smaller: from then on its keyframes bring other parameter sets."""
    first, then = coded_stream(frames=frames), coded_stream(frames=frames, size=(64, 48))
    sets = _parameter_sets(then.header)
    smaller = tuple(
        replace(one, content=sets * one.is_keyframe + one.content, pts=one.pts + 40 * frames) for one in then.pictures
    )
    return replace(first, pictures=first.pictures + smaller)


def _block(picture: Coded) -> bytes:
    return b"\x81\x00\x00" + bytes([0x80 if picture.is_keyframe else 0]) + picture.content


def _number(value: int) -> bytes:
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")


def _element(kind: int, content: bytes) -> bytes:
    return _number(kind) + (len(content) | 1 << 56).to_bytes(8, "big") + content


def avi_with_not_coded_slots(frames: int = 25) -> bytes:
    """MPEG-4 in AVI at 25 slots a second: a picture in each even slot, a VOP that is "not coded" in each odd one."""
    source = video_bytes(frames=frames, codec="mpeg4", container="avi")
    return _remuxed(source, "avi", 25, lambda picture, _: [picture, NOT_CODED_VOP])


NOT_CODED_VOP = bytes([0, 0, 1, 0xB6, 0x50, 0xCF])
"""A P-VOP with ``vop_coded`` 0 (ISO/IEC 14496-2, 6.2.5), as encoders write when nothing has changed."""


def mp4_with_parameter_set_samples(frames: int = 20) -> bytes:
    """H.264 in MP4 at 50 samples a second: before each picture a sample that holds only SPS and PPS."""
    return _remuxed(video_bytes(frames=frames), "mp4", 50, lambda picture, header: [_parameter_sets(header), picture])


def _parameter_sets(header: bytes) -> bytes:
    """The SPS and the PPS of an avcC box, as units with a length of 4 bytes."""
    sps_size = int.from_bytes(header[6:8], "big")
    sps, rest = header[8 : 8 + sps_size], header[8 + sps_size :]
    pps = rest[3 : 3 + int.from_bytes(rest[1:3], "big")]
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in (sps, pps))


def _remuxed(content: bytes, container: str, rate: int, samples: Callable[[bytes, bytes], list[bytes]]) -> bytes:
    """A video of ``rate`` samples a second, in which each picture is replaced by ``samples(picture, header)``."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(content)) as source, av.open(buffer, "w", format=container) as output:
        stream = source.streams.video[0]
        track = output.add_stream_from_template(stream)
        track.time_base = Fraction(1, rate)
        number = 0
        for picture in source.demux(stream):
            if not picture.size:
                continue
            for sample in samples(bytes(picture), stream.codec_context.extradata or b""):
                packet = av.Packet(sample)
                packet.stream, packet.time_base = track, Fraction(1, rate)
                packet.pts = packet.dts = number
                packet.duration, packet.is_keyframe = 1, picture.is_keyframe
                output.mux(packet)
                number += 1
    return buffer.getvalue()


def two_tracks(still_frames: int) -> bytes:
    """Track 0: a small MJPEG with so many frames; track 1: ten frames of H.264. Neither is marked as the default."""
    buffer = io.BytesIO()
    small = video_bytes(frames=still_frames, codec="mjpeg", container="mov", size=(64, 48), pixel_format="yuvj420p")
    with (
        av.open(buffer, "w", format="mov") as output,
        av.open(io.BytesIO(small)) as first,
        av.open(io.BytesIO(video_bytes(frames=10))) as second,
    ):
        sources = [file.streams.video[0] for file in (first, second)]
        tracks = [output.add_stream_from_template(source) for source in sources]
        for track in tracks:
            track.disposition = Disposition(0)
        for file, source, track in zip((first, second), sources, tracks, strict=True):
            for packet in file.demux(source):
                if packet.size:
                    packet.stream = track
                    output.mux(packet)
    return buffer.getvalue()


def with_display_matrix(content: bytes, entries: tuple[float, float, float, float]) -> bytes:
    """An MP4 with another display matrix in its track header: x' = a x + c y, y' = b x + d y."""
    a, b, c, d = (round(entry * 65536) for entry in entries)
    matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    upright = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    header = content.index(b"tkhd")
    at = content.index(upright, header)
    return content[:at] + matrix + content[at + len(matrix) :]


def with_late_picture(content: bytes, entry: int) -> bytes:
    """An MP4 in which one picture is .4 s late: the first from ``entry`` on with a composition offset (ctts)."""
    at = content.index(b"ctts") + 12 + 8 * entry
    while struct.unpack_from(">I", content, at)[0] != 1:
        at += 8
    count, offset = struct.unpack_from(">Ii", content, at)
    return content[:at] + struct.pack(">Ii", count, offset + 5000) + content[at + 8 :]
