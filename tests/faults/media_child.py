"""What a job does with one file, in a process that may die of it: a line in names a file, a line out says what came.

::

    python media_child.py < names > outcomes
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from posebatch.core.errors import IndexDisagreesError, VideoError
from posebatch.core.frames import FrameRecord
from posebatch.core.settings import LimitSettings, SamplingSettings
from posebatch.core.videos import Segment, VideoPlan
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder

STRIDES = (1, 5)
BATCH_FRAMES = 4
SEGMENT_SECONDS = 0.3


@dataclass(frozen=True)
class Outcome:
    """How it ended."""

    verdict: str
    """``decoded``, ``partial``, ``failed:<kind>``, or ``bug``; and from outside ``crash`` or ``hang``."""
    detail: str = ""
    frames: int = 0
    """Rows that the first stride gave."""
    pixels: str = ""
    """A digest of what the first stride gave: rows and pictures."""
    seconds: float = 0.0
    megabytes: float = 0.0
    """The most memory that the process has had so far."""


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(asdict(outcome_of(**json.loads(line)))), flush=True)


def outcome_of(path: str, threads: int = 1, limits: dict[str, Any] | None = None) -> Outcome:
    """Probe, cut, and decode every segment at every stride."""
    started = time.perf_counter()
    frames, pixels, detail = 0, "", ""
    try:
        verdict, frames, pixels = _all_strides(Path(path), threads, LimitSettings(**(limits or {})))
    except VideoError as error:
        verdict, detail = f"failed:{error.kind}", str(error)
    except Exception:
        verdict, detail = "bug", traceback.format_exc()
    return Outcome(verdict, detail, frames, pixels, time.perf_counter() - started, _most_megabytes())


def _most_megabytes() -> float:
    """Of this process alone: what ``getrusage`` says counts the parent's memory too, from before this one's start."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _all_strides(path: Path, threads: int, limits: LimitSettings) -> tuple[str, int, str]:
    """The verdict, and of the first stride the number of rows and a digest."""
    found = []
    for stride in STRIDES:
        with path.open("rb") as file:
            plan = probe(file, path.name, SEGMENT_SECONDS, limits)
            try:
                found.append(_decoded(file, path.name, plan, stride, threads, limits))
            except IndexDisagreesError:  # the runner begins again with one segment
                found.append(_decoded(file, path.name, replace(plan, segments=(Segment(),)), stride, threads, limits))
    return "partial" if any(one.damaged for one in found) else "decoded", found[0].rows, found[0].digest.hexdigest()


@dataclass
class _Rows:
    """What came of a video, as far as it must be valid: numbers and times rise, and fit 64 bits."""

    rows: int = 0
    latest: tuple[int, int] = (-1, -(1 << 63))
    damaged: bool = False
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, record: FrameRecord) -> None:
        now = record.frame_index, record.pts
        assert self.latest[0] < now[0], f"row {now} after {self.latest}"
        assert self.latest[1] < now[1] < 1 << 63, f"row {now} after {self.latest}"
        self.latest, self.rows = now, self.rows + 1


def _decoded(file: Any, name: str, plan: VideoPlan, stride: int, threads: int, limits: LimitSettings) -> _Rows:
    found = _Rows()
    sampling, records = SamplingSettings(stride), []
    for segment in plan.segments:
        decoder = SegmentDecoder(
            file,
            name,
            segment,
            plan.info,
            DecodeOptions(sampling=sampling, batch_frames=BATCH_FRAMES, threads=threads, limits=limits),
        )
        for batch in decoder:
            records += batch.records
            found.digest.update(repr(batch.records).encode() + batch.images.tobytes())
        found.damaged |= decoder.report.frames_damaged > 0 or decoder.report.ends_early
    for record in records:
        assert record.frame_index % stride == 0
        found.add(record)
    return found


if __name__ == "__main__":
    main()
