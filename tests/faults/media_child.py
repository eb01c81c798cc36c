"""Probe and decode files in a process that may die of them. Each line of input names a file, each line out its outcome.

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
from posebatch.core.execution_settings import LimitSettings
from posebatch.core.frames import FrameRecord
from posebatch.core.settings import SamplingSettings
from posebatch.core.videos import Segment, VideoPlan
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder

STRIDES = (1, 5)
BATCH_FRAMES = 4
SEGMENT_SECONDS = 0.3


@dataclass(frozen=True)
class Outcome:
    """How probing and decoding a file ended."""

    verdict: str
    """``decoded``, ``partial``, ``failed:<kind>`` or ``bug``; the parent adds ``crash`` and ``hang``."""
    detail: str = ""
    frames: int = 0
    """Rows of the first stride."""
    pixels: str = ""
    """A digest of the rows and images of the first stride."""
    seconds: float = 0.0
    megabytes: float = 0.0
    """Peak memory of the process so far."""


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(asdict(outcome_of(**json.loads(line)))), flush=True)


def outcome_of(path: str, threads: int = 1, limits: dict[str, Any] | None = None) -> Outcome:
    """Probe a file, and decode every segment at every stride."""
    started = time.perf_counter()
    frames, pixels, detail = 0, "", ""
    try:
        verdict, frames, pixels = _all_strides(Path(path), threads, LimitSettings(**(limits or {})))
    except VideoError as error:
        verdict, detail = f"failed:{error.kind}", str(error)
    except Exception:
        verdict, detail = "bug", traceback.format_exc()
    return Outcome(verdict, detail, frames, pixels, time.perf_counter() - started, _peak_megabytes())


def _peak_megabytes() -> float:
    """Peak memory of this process alone: ``getrusage`` includes memory of the parent from before the start."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _all_strides(path: Path, threads: int, limits: LimitSettings) -> tuple[str, int, str]:
    """The verdict; and the number of rows and the digest of the first stride."""
    results = []
    for stride in STRIDES:
        with path.open("rb") as file:
            plan = probe(file, path.name, SEGMENT_SECONDS, limits)
            try:
                results.append(_decoded(file, path.name, plan, stride, threads, limits))
            except IndexDisagreesError:  # the scheduler then decodes the video as one segment
                results.append(_decoded(file, path.name, replace(plan, segments=(Segment(),)), stride, threads, limits))
    return (
        "partial" if any(result.damaged for result in results) else "decoded",
        results[0].rows,
        results[0].digest.hexdigest(),
    )


@dataclass
class _Rows:
    """The rows of a video. Their numbers and times must rise, and fit 64 bits."""

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
    rows = _Rows()
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
            rows.digest.update(repr(batch.records).encode() + batch.images.tobytes())
        rows.damaged |= decoder.report.frames_damaged > 0 or decoder.report.ends_early
    for record in records:
        assert record.frame_index % stride == 0
        rows.add(record)
    return rows


if __name__ == "__main__":
    main()
