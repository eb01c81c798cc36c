"""Compare the times of frames with FFmpeg's best-effort timestamps: a Markdown table, one row for each video.

    python tests/parity/timestamps_against_ffmpeg.py VIDEO...

Needs the command ``ffprobe``. A row states the number of frames by both, the largest difference in seconds, and how
many frames posebatch repaired or presents as damaged.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from posebatch.core.errors import PosebatchError
from posebatch.core.frames import FrameRecord
from posebatch.core.settings import SamplingSettings
from posebatch.core.videos import Segment, VideoInfo
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder


def main(paths: list[str]) -> int:
    print(
        "| video | frames | FFmpeg's frames | largest difference, s | repaired | damaged |\n|---|---|---|---|---|---|"
    )
    for path in map(Path, paths):
        try:
            info, records = frames_of(path)
        except PosebatchError as error:
            print(f"| {path.name} | {type(error).__name__} | | | | |")
            continue
        ours = [record.pts * info.time_base for record in records]
        theirs = [tick * info.time_base for tick in ticks_by_ffmpeg(path, info.track or 0)]
        pairs = zip(ours, theirs, strict=False)
        largest = max((abs(float(our - their)) for our, their in pairs), default=0.0)
        repaired = sum(record.time_status != "ok" for record in records)
        damaged = sum(record.status != "ok" for record in records)
        print(f"| {path.name} | {len(ours)} | {len(theirs)} | {largest:.6f} | {repaired} | {damaged} |", flush=True)
    return 0


def frames_of(path: Path) -> tuple[VideoInfo, list[FrameRecord]]:
    with path.open("rb") as file:
        info = probe(file, path.name, 1e9).info
        decoder = SegmentDecoder(file, path.name, Segment(), info, DecodeOptions(SamplingSettings(), threads=2))
        return info, [record for batch in decoder for record in batch.records]


def ticks_by_ffmpeg(path: Path, stream: int) -> list[int]:
    command = ["ffprobe", "-v", "quiet", "-select_streams", str(stream), "-show_entries"]
    command += ["frame=best_effort_timestamp", "-of", "csv=p=0", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    values = (line.strip().rstrip(",") for line in done.stdout.splitlines())
    return [int(value) for value in values if value.lstrip("-").isdigit()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
