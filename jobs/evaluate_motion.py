"""Measure the movement of tracks: its errors against a walker whose joints are known, its speed and its memory.

python jobs/evaluate_motion.py                         errors of joints and angles, raw and smoothed
python jobs/evaluate_motion.py --frames 2000000        rows per second on one core, and peak memory
python jobs/evaluate_motion.py --derive 50000          the same of a whole derivation: read, link, smooth, write tables
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from posebatch.core.frames import FramePoses, FrameRecord
from posebatch.core.motion_settings import MotionSettings
from posebatch.core.records import DecodeReport, SegmentReport
from posebatch.core.settings import settings_from
from posebatch.core.videos import Segment, SourceVideo, VideoInfo, VideoPlan
from posebatch.dataset.tables.staged import StagedWriter
from posebatch.demo.walker import SCALE, STRIDE, Outfit, walk_cycle
from posebatch.evaluation.motion_errors import KPT_THR, Noise, all_seen, block_of, compare, noisy
from posebatch.motion.movement.series import Movement
from posebatch.run.context import RunContext
from posebatch.run.tasks import DeriveTask, FinalizeTask
from posebatch.run.workers.derive import derive_video
from posebatch.run.workers.finalize import finalize_video
from posebatch.storage.spool import spooled

HEIGHT_PX = 180.0
WALKER_M = 1.75
CYCLE_S = 1.1
SECONDS = 60
BLOCK = 1000
SEGMENT_FRAMES = 5000
MEDIAN_PX = 3.6
"""Median error of the default networks on the demo's walkers."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, help="measure speed and memory on this many frames")
    parser.add_argument("--derive", type=int, metavar="FRAMES", help="measure a derivation of this many frames")
    parser.add_argument("--persons", type=int, default=2, help="in each frame, with --frames and --derive")
    parser.add_argument("--cutoff-hz", type=float, default=MotionSettings().cutoff_hz)
    options = parser.parse_args(arguments)
    if options.frames:
        measure_speed(options.frames, options.persons)
        return 0
    if options.derive:
        measure_derivation(options.derive, options.persons)
        return 0
    settings = MotionSettings(cutoff_hz=options.cutoff_hz)
    for fps in (30, 60):
        truth = walker(fps)
        for kept in (0.0, 0.5):
            print(f"\n{fps} frames/s, {kept:.0%} of the error stays from frame to frame")
            keypoints = noisy(truth, Noise(MEDIAN_PX, kept), np.random.default_rng(0))
            print(compare(np.arange(len(truth)) / fps, truth, keypoints, settings))
    return 0


def walker(fps: int, seconds: float = SECONDS) -> np.ndarray:
    """Joints (f, 17, 2) in pixels of the demo's walker, who walks to the right, turned a little to the viewer."""
    steps = round(CYCLE_S * fps)
    shirt = (180.0, 60.0, 50.0)
    cycle = [sprite.joints - sprite.anchor for sprite in walk_cycle(Outfit(shirt, shirt, shirt), 0.3, steps)]
    scale = HEIGHT_PX / WALKER_M / SCALE
    frames = np.arange(round(seconds * fps))
    joints = np.array(cycle)[frames % steps] * scale
    joints[..., 0] += (100 + frames * STRIDE * SCALE * scale * np.cos(0.3) / steps)[:, None]
    joints[..., 1] += 500
    return joints


def measure_speed(frames: int, persons: int) -> None:
    """Print rows per second, from arrays to arrays, and the peak memory of this process."""
    cycle = noisy(walker(30, 33.0), Noise(MEDIAN_PX, 0.0), np.random.default_rng(0))[: BLOCK - BLOCK % 33]
    people = np.repeat(cycle[:, None], persons, axis=1)
    people[..., 1] += 10 * np.arange(persons)[:, None]
    series = Movement(all_seen(frames, persons), MotionSettings(), (1920, 1080), KPT_THR)
    started, rows = time.process_time(), 0
    for first in range(0, frames, len(people)):
        part = people[: frames - first]
        block = block_of(np.arange(first, first + len(part)) / 30, part, first)
        rows += sum(len(moved.track_id) for moved in series.add(block))
    rows += sum(len(moved.track_id) for moved in series.finish())
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{rows:,} rows, {rows / seconds:,.0f} rows per CPU second, {peak:,.0f} MB at most, libraries included")
    print(series.summaries()[0])


def measure_derivation(frames: int, persons: int) -> None:
    """Publish made-up persons without tracks, derive their tracks and motion, and print rows per second."""
    with tempfile.TemporaryDirectory() as folder:
        video = SourceVideo("walkers.mp4", "walkers.mp4", "etag", 1, 0.0)
        info = VideoInfo("h264", "yuv420p", 4800, 1080, 0, Fraction(1, 30), 0, frames / 30, 30.0, frames)
        segments = tuple(Segment(number, first) for number, first in enumerate(range(0, frames, SEGMENT_FRAMES)))
        untracked = RunContext("publish", settings_from({"track": False}), folder, "d", "p")
        stage_walkers(untracked, video, segments, frames, persons)
        finalize_video(FinalizeTask(video, VideoPlan(info, segments), 1), untracked)
        context = RunContext("derive", settings_from({}), folder, "d", "p", only_derives=True)
        started, cpu = time.perf_counter(), time.process_time()
        record = derive_video(DeriveTask(video), context).record
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{record.persons:,} rows, {record.tracks} tracks: {cpu:.1f} CPU seconds, {seconds:.1f} s", end="; ")
    print(f"{record.persons / cpu:,.0f} rows per CPU second")
    print(f"{peak:,.0f} MB at most, libraries included")


def stage_walkers(
    context: RunContext, video: SourceVideo, segments: Sequence[Segment], frames: int, persons: int
) -> None:
    """Stage the segments of a video of walkers side by side, with the errors of the networks."""
    walk = noisy(walker(30, 33.0), Noise(MEDIAN_PX, 0.0), np.random.default_rng(0)).astype(np.float32)
    people = np.repeat(walk[:, None], persons, axis=1)
    people[..., 1] += (200 * np.arange(persons, dtype=np.float32))[:, None]
    boxes = np.concatenate([people[..., :2].min(axis=2) - 10, people[..., :2].max(axis=2) + 10], axis=2)
    scores = np.full(persons, 0.9, np.float32)
    staging = context.staging(video)
    for segment in segments:
        numbers = range(segment.first_packet, min(segment.first_packet + SEGMENT_FRAMES, frames))
        with spooled() as file:
            writer = StagedWriter(file)
            for number in numbers:
                there_and_back = abs(number % (2 * len(walk) - 2) - len(walk) + 1)
                record = FrameRecord(number, number, False, "ok")
                writer.add(FramePoses(record, boxes[there_and_back], scores, scores, people[there_and_back]))
            writer.close(SegmentReport(DecodeReport(len(numbers))))
            staging.stage(segment, file)


if __name__ == "__main__":
    sys.exit(main())
