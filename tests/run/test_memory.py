"""The memory of a worker and of publication does not grow with the video."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
from benchmarks.child_process import peak_memory_mb
from support.factories import video_bytes

from posebatch.core.frames import FramePoses
from posebatch.core.images import FrameBatch
from posebatch.core.settings import Settings
from posebatch.run.context import RunContext
from posebatch.run.planning.inputs import list_videos, parse_inputs
from posebatch.run.tasks import FinalizeTask, SegmentTask
from posebatch.run.workers.finalize import finalize_video
from posebatch.video.probe import probe

pytestmark = pytest.mark.slow

FPS = 5
GOP = 50
SHORT_SECONDS, LONG_SECONDS = 120, 7200

WORKER_GROWTH_MB = 48
"""MB. The results of the long video would take over 100 MB, and its pixels 300 MB."""

PUBLISHING_GROWTH_MB = 180
"""MB: a row group of poses and one of motion with their copies, which the short video does not fill, and the staged
file."""


HD_FRAMES = 60
"""At 1080p these take 373 MB, more than may wait."""

HD_WORKER_MB = 250
"""MB: three batches of 25 MB in the queue and in the networks, the next batch, and FFmpeg."""


class EveryoneEverywhere:
    """A substitute for the networks: two persons in each frame."""

    batch_frames, placement = 4, "none"

    def __init__(self, seconds_per_batch: float = 0.0) -> None:
        self._seconds_per_batch = seconds_per_batch

    def estimate(self, batches: Iterable[FrameBatch], clock: object) -> Iterator[FramePoses]:
        shapes = ((2, 4), (2,), (2,), (2, 17, 3))
        for batch in batches:
            time.sleep(self._seconds_per_batch)
            for record in batch.records:
                rng = np.random.default_rng(record.frame_index)  # random, so that it does not compress away
                yield FramePoses(record, *(rng.random(shape).astype(np.float32) for shape in shapes))


def process_and_publish(video_path: Path) -> dict[str, float]:
    """Process a video as one segment and publish it; MB that each of the two adds to the peak memory."""
    from posebatch.run.workers.segment_worker import SegmentProcessor  # noqa: PLC0415 - torch is large: not in the tests' own process

    context = RunContext("run", Settings(), str(video_path.parent / "out"), "d@1", "p@1")
    (video,) = list_videos(parse_inputs([str(video_path)]), context.settings.selection)
    with open(video.uri, "rb") as file:
        plan = probe(file, video.uri, 20)
    assert len(plan.segments) == 1
    before = peak_memory_mb()
    SegmentProcessor(context, EveryoneEverywhere()).process(SegmentTask(video, plan.info, plan.segments[0]))
    between = peak_memory_mb()
    record = finalize_video(FinalizeTask(video, plan, 1), context).record
    return {"rows": record.persons, "worker": between - before, "publishing": peak_memory_mb() - between}


def process_two_segments(video_path: Path) -> dict[str, float]:
    """Two segments in a worker whose networks are much slower than its decoder; MB added to the peak memory."""
    from posebatch.run.workers.segment_worker import SegmentProcessor  # noqa: PLC0415

    context = RunContext("run", Settings(), str(video_path.parent / "out"), "d@1", "p@1")
    (video,) = list_videos(parse_inputs([str(video_path)]), context.settings.selection)
    with open(video.uri, "rb") as file:
        plan = probe(file, video.uri, 1000)
    task = SegmentTask(video, plan.info, plan.segments[0])
    processor = SegmentProcessor(context, EveryoneEverywhere(seconds_per_batch=0.2))
    before = peak_memory_mb()
    with ThreadPoolExecutor(2) as callers:
        results = list(callers.map(processor.process, [task, task]))
    return {"rows": sum(result.persons for result in results), "worker": peak_memory_mb() - before}


def repeat(content: bytes, times: int, target: Path) -> None:
    """Make a long video from a short one by repeating its packets, without encoding."""
    with av.open(io.BytesIO(content)) as source, av.open(str(target), "w", format="matroska") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        step = packets[1].pts - packets[0].pts
        for i in range(times * len(packets)):
            original = packets[i % len(packets)]
            packet = av.Packet(bytes(original))
            packet.pts = packet.dts = i * step
            packet.stream, packet.time_base, packet.is_keyframe = stream, original.time_base, original.is_keyframe
            output.mux(packet)


def run_in_child(*videos: Path) -> subprocess.CompletedProcess[str]:
    """Run this file on the videos, with the folders of the tests and of the benchmarks on its path."""
    root = Path(__file__).parents[2]
    paths = [str(root / "jobs"), str(root / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, __file__, *map(str, videos)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path: Path) -> None:
    videos = []
    for seconds in (SHORT_SECONDS, LONG_SECONDS):
        folder = tmp_path / str(seconds)
        folder.mkdir()
        videos.append(folder / "grey.mkv")  # a container without an index: one segment, the hardest case
        repeat(
            video_bytes(frames=GOP, gop=GOP, fps=FPS, container="mkv", size=(64, 48)), FPS * seconds // GOP, videos[-1]
        )
    # In a process of its own and the short video first, because a peak cannot be reset.
    ended = run_in_child(*videos)
    assert ended.returncode == 0, ended.stderr
    _, long = json.loads(ended.stdout)
    assert long["rows"] == 2 * FPS * LONG_SECONDS
    assert long["worker"] < WORKER_GROWTH_MB
    assert long["publishing"] < PUBLISHING_GROWTH_MB


def test_memory_is_bounded_for_two_segments_of_large_frames(tmp_path: Path) -> None:
    path = tmp_path / "hd.mp4"
    repeat(video_bytes(frames=4, gop=4, size=(1920, 1080)), HD_FRAMES // 4, path)
    ended = run_in_child(path)
    assert ended.returncode == 0, ended.stderr
    (hd,) = json.loads(ended.stdout)
    assert hd["rows"] == 2 * 2 * HD_FRAMES
    assert 75 < hd["worker"] < HD_WORKER_MB, "the decoder was ahead, but within its limit"


if __name__ == "__main__":
    measure = process_two_segments if sys.argv[1].endswith("hd.mp4") else process_and_publish
    print(json.dumps([measure(Path(name)) for name in sys.argv[1:]]))
