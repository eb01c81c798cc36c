"""Cost of the scan that gives a video an index of packets, beside the cost of decoding it.

``python -m benchmarks.scanning clip.mp4 --minutes 60`` repeats the packets of a clip in each container until the
video is so long, scans the file, and decodes its first segments. Nothing is encoded. ``--folder`` keeps the files.
"""

from __future__ import annotations

import argparse
import io
import itertools
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
import av.error
from typing_extensions import override

from posebatch.core.text_table import text_table
from posebatch.core.videos import Segment
from posebatch.storage.open import READ_AHEAD_BYTES
from posebatch.video.container import open_video
from posebatch.video.indexes.indexed_packets import IndexedPackets
from posebatch.video.indexes.packet_index import PacketIndex
from posebatch.video.indexes.packet_scan import scan
from posebatch.video.limits import Limits
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder

CONTAINERS: Final = {"matroska": "mkv", "avi": "avi", "mpegts": "ts", "mp4": "mp4"}
"""FFmpeg's names of containers, with the suffix of a file."""


SEGMENT_SECONDS: Final = 20.0


DECODED_SEGMENTS: Final = 2


@dataclass(frozen=True)
class ScanFigures:
    """A scan, and the decoding of a few segments, in seconds of a core: other work on the machine is not in them."""

    container: str
    megabytes: float
    packets: int
    scan_s: float
    index_bytes: int
    segments: int
    requests: int
    """Reads of `READ_AHEAD_BYTES` that the packets of all segments take, as from S3."""
    decoded_frames: int
    decode_s: float

    @property
    def decode_all_s(self) -> float:
        """Seconds of a core to decode all frames, at the rate of the decoded ones."""
        return self.decode_s * self.packets / max(1, self.decoded_frames)


def write_looped(video: Path, target: Path, container: str, minutes: float) -> None:
    """Repeat the packets of a video until it lasts ``minutes``.

    Raises ``FFmpegError`` if the container does not take them.
    """
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"} if container == "mp4" else {}
    with av.open(str(video)) as source, av.open(str(target), "w", format=container, options=options) as output:
        stream = source.streams.video[0]
        track = output.add_stream_from_template(stream)
        assert stream.time_base is not None
        packets = [(bytes(packet), packet.pts, packet.dts, packet.duration, packet.is_keyframe)
                   for packet in source.demux(stream) if packet.size]  # fmt: skip
        length = sum(duration or 0 for *_, duration, _ in packets)
        for turn in itertools.count():
            if turn * length * stream.time_base >= 60 * minutes:
                return
            for content, pts, dts, duration, is_keyframe in packets:
                packet = av.Packet(len(content))
                packet.update(content)
                packet.stream, packet.time_base = track, stream.time_base
                packet.pts, packet.dts = (pts or 0) + turn * length, (dts or 0) + turn * length
                packet.duration, packet.is_keyframe = duration or 0, is_keyframe
                output.mux(packet)


class _CountedFile(io.RawIOBase):
    """A file that counts its reads."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self.reads = 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    @override
    def readinto(self, buffer: Any) -> int:
        self.reads += 1
        return self._file.readinto(buffer)

    @override
    def close(self) -> None:
        self._file.close()
        super().close()


def _requests(path: Path, index: PacketIndex, segments: tuple[Segment, ...]) -> int:
    """Reads that open the file for each segment, and read its packets."""
    reads = 0
    for segment in segments if len(index) else ():
        counted = _CountedFile(path)
        with (
            io.BufferedReader(counted, READ_AHEAD_BYTES) as file,
            open_video(file, Limits(str(path)), streamed=True) as video,
        ):
            for _ in IndexedPackets(video, file, segment, index):
                pass
        reads += counted.reads
    return reads


def measure_scan(path: Path, container: str) -> ScanFigures:
    """Scan a file, and decode its first segments."""
    with path.open("rb") as file:
        info = probe(file, str(path), SEGMENT_SECONDS).info
        started = time.process_time()
        index = scan(file, Limits(str(path)))
        scan_s = time.process_time() - started
        segments = index.segments(SEGMENT_SECONDS / info.time_base)
        frames, decode_s = 0, 0.0
        for segment in segments[:DECODED_SEGMENTS]:
            decoder, started = (
                SegmentDecoder(file, str(path), segment, info, DecodeOptions(), index),
                time.process_time(),
            )
            frames += sum(len(batch.records) for batch in decoder)
            decode_s += time.process_time() - started
    size = path.stat().st_size / 1e6
    index_bytes = len(index.to_bytes(""))
    requests = _requests(path, index, segments)
    return ScanFigures(container, size, len(index), scan_s, index_bytes, len(segments), requests, frames, decode_s)


def table(rows: list[ScanFigures]) -> str:
    """The figures as text."""
    head = [
        "container",
        "MB",
        "packets",
        "scan s",
        "MB/s",
        "index kB",
        "segments",
        "requests",
        "decode s",
        "scan / decode",
    ]
    body = [
        [
            row.container,
            f"{row.megabytes:.1f}",
            str(row.packets),
            f"{row.scan_s:.2f}",
            f"{row.megabytes / row.scan_s:.0f}",
            f"{row.index_bytes / 1e3:.0f}",
            str(row.segments),
            str(row.requests),
            f"{row.decode_all_s:.0f}",
            f"{row.scan_s / row.decode_all_s:.3f}",
        ]
        for row in rows
        if row.packets
    ]
    return text_table(head, body)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--folder", type=Path, help="default: a temporary folder")
    chosen, rows = parser.parse_args(), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for container, suffix in CONTAINERS.items():
            path = folder / f"long.{suffix}"
            try:
                write_looped(chosen.video, path, container, chosen.minutes)
            except av.error.FFmpegError as error:
                print(f"{container} does not take this video: {error.strerror}", file=sys.stderr)
                continue
            rows.append(measure_scan(path, container))
    print(table(rows))


if __name__ == "__main__":
    main()
