"""Files crafted to do harm: bombs that claim to be large, and playlists that refer to other files."""

from __future__ import annotations

import io
import struct
from typing import Any, Final

import av
from faults.mutated_media import CODECS, base
from support.factories import video_bytes

GROWING: Final = {"h264": "mpegts", "hevc": "mpegts", "mpeg4": "avi", "mjpeg": "avi", "vp9": "mkv"}
"""A container for each codec whose streams may change their frame size."""


def patched(content: bytes, kind: bytes, offset: int, value: bytes) -> bytes:
    """A file with other bytes at an offset from each occurrence of a box name."""
    changed, at = bytearray(content), content.find(kind)
    assert at >= 0, kind
    while at >= 0:
        changed[at + offset : at + offset + len(value)] = value
        at = content.find(kind, at + 1)
    return bytes(changed)


def numbers(*values: int) -> bytes:
    """The values as 32-bit integers, big-endian."""
    return struct.pack(f">{len(values)}I", *values)


def huge_header() -> bytes:
    """A container header of 65500 x 65500 pixels for a small stream; a decoder need not believe it."""
    return patched(video_bytes(frames=24, gop=8), b"avc1", 28, struct.pack(">2H", 65500, 65500))


def huge_mjpeg(side: int) -> bytes:
    """Pictures whose own header claims this size."""
    return patched(base("mjpeg", "avi"), b"\xff\xc0", 5, struct.pack(">2H", side, side))


def huge_h264(side: int) -> bytes:
    """A stream whose parameter set claims this size (ITU-T H.264, 7.3.2.1), with nearly empty pictures."""
    blocks = side // 16 - 1
    bits = f"{66:08b}{0:08b}{62:08b}" + _ue(0) + _ue(0) + _ue(2) + _ue(1) + "0" + _ue(blocks) + _ue(blocks) + "11001"
    parameters = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    units = [b"\x67" + parameters, b"\x68\xce\x38\x80", b"\x65\x88\x84" + bytes(range(1, 200))]
    return _muxed("h264", "mpegts", [b"".join(b"\0\0\0\1" + unit for unit in units)] * 6)


def _ue(value: int) -> str:
    """A number in Exp-Golomb code (ITU-T H.264, 9.1)."""
    binary = f"{value + 1:b}"
    return "0" * (len(binary) - 1) + binary


def growing(codec: str) -> bytes:
    """One stream that begins with small pictures and goes on with 640 x 480."""
    how: dict[str, Any] = CODECS[codec] | {"frames": 6, "gop": 6, "b_frames": 0, "container": GROWING[codec]}
    packets: list[bytes] = []
    for size in ((128, 96), (640, 480)):
        with av.open(io.BytesIO(video_bytes(size=size, **how))) as source:
            packets += [bytes(packet) for packet in source.demux(video=0) if packet.size]
    return _muxed(codec, GROWING[codec], packets)


def _muxed(codec: str, container: str, packets: list[bytes]) -> bytes:
    sink = io.BytesIO()
    small = video_bytes(**(CODECS[codec] | {"frames": 6, "gop": 6, "b_frames": 0, "container": container}))
    with (
        av.open(io.BytesIO(small)) as source,
        av.open(sink, "w", format="matroska" if container == "mkv" else container) as output,
    ):
        stream = output.add_stream_from_template(source.streams.video[0])
        for i, content in enumerate(packets):
            packet = av.Packet(content)
            packet.stream, packet.time_base = stream, source.streams.video[0].time_base
            packet.pts = packet.dts = round(i / 25 / packet.time_base)
            packet.is_keyframe = i % 6 == 0
            output.mux(packet)
    return sink.getvalue()


def many_frames(count: int) -> bytes:
    """An MP4 whose index lists ``count`` frames of 20 bytes."""
    content = patched(video_bytes(frames=24, gop=8), b"stsz", 8, numbers(20, count))
    return patched(patched(content, b"stts", 12, numbers(count)), b"stsc", 12, numbers(1, count))


def many_frames_in_fragment(count: int) -> bytes:
    """A fragmented MP4 whose fragments each claim ``count`` frames, without bytes for them."""
    return patched(base("h264", "fragmented"), b"trun", 4, numbers(1, count))


def many_streams(count: int, container: str) -> bytes:
    """A file with ``count`` video streams."""
    sink = io.BytesIO()
    with (
        av.open(io.BytesIO(video_bytes(frames=6, gop=6))) as source,
        av.open(sink, "w", format=container) as output,
    ):
        streams = [output.add_stream_from_template(source.streams.video[0]) for _ in range(count)]
        for packet in source.demux(video=0):
            for stream in streams if packet.size else ():
                copy = av.Packet(bytes(packet))
                copy.stream, copy.time_base = stream, packet.time_base
                copy.pts, copy.dts, copy.is_keyframe = packet.pts, packet.dts, packet.is_keyframe
                output.mux(copy)
    return sink.getvalue()


def playlists(address: str, path: str) -> dict[str, bytes]:
    """Files that make FFmpeg open another file, by name: they refer to an address, or to a path."""
    text = {
        "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{0}\n#EXT-X-ENDLIST\n",
        "key.m3u8": '#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXT-X-KEY:METHOD=AES-128,URI="{0}"\n#EXTINF:9,\n{0}\n',
        "ffconcat": "ffconcat version 1.0\nfile '{0}'\n",
        "concat": "file '{0}'\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video {1} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT9S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="0" '
        'bandwidth="1"><BaseURL>{0}</BaseURL></Representation></AdaptationSet></Period></MPD>',
        "asx": '<asx version="3.0"><entry><ref href="{0}"/></entry></asx>',
        "ram": "{0}\n",
        "nut.idx": "{0}\n",
        "imf.xml": '<CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>{0}</Id></CompositionPlaylist>',
        "ass": "[Script Info]\nVideo File: {0}\nAudio File: {0}\n[Events]\n",
        "usf": "<USFSubtitles><image>{0}</image></USFSubtitles>",
        "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{0}"/></svg>',
    }
    port = address.rpartition(":")[2].partition("/")[0]
    made = {
        f"{kind}.{name}": content.format(target, port).encode()
        for kind, target in (("address", address), ("file", path), ("url", "file://" + path), ("sub", "concat:" + path))
        for name, content in text.items()
    }
    for name in ("m3u8", "ffconcat", "mpd"):
        made[f"disguised-{name}.mp4"] = made[f"file.{name}"]
    made["reference.mov"] = _with_reference(path.encode())
    made["address.mov"] = _with_reference(address.encode())
    made["attached.mkv"] = _with_attachment(made["address.m3u8"])
    return made


def _with_reference(target: bytes) -> bytes:
    """A QuickTime file whose pictures lie in another file, named by an address and by an alias with a path."""
    content = video_bytes(frames=6, gop=6, container="mov")
    at = content.find(b"dref")
    size = int.from_bytes(content[at - 4 : at], "big")
    alias = bytes(150) + struct.pack(">2h", 2, len(target)) + target + bytes(len(target) % 2) + numbers(0xFFFF0000)
    entries = [b"url " + numbers(0) + target + b"\0", b"alis" + numbers(0) + alias]
    table = b"".join(numbers(len(entry) + 4) + entry for entry in entries)
    reference = numbers(16 + len(table)) + b"dref" + numbers(0, len(entries)) + table
    changed = content[: at - 4] + reference + content[at - 4 + size :]
    grown = len(reference) - size
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):  # each box contains the next
        place = changed.find(box) - 4
        changed = (
            changed[:place] + numbers(int.from_bytes(changed[place : place + 4], "big") + grown) + changed[place + 4 :]
        )
    return changed


def _with_attachment(attached: bytes) -> bytes:
    sink = io.BytesIO()
    with (
        av.open(io.BytesIO(video_bytes(frames=6, gop=6, container="mkv"))) as source,
        av.open(sink, "w", format="matroska") as output,
    ):
        stream = output.add_stream_from_template(source.streams.video[0])
        output.add_attachment("../../list.m3u8", "application/x-mpegurl", attached)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    return sink.getvalue()
