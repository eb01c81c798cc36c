"""Measure the movement of tracks: its errors against a walker whose joints are known, its speed and its memory.

python jobs/evaluate_motion.py                         errors of joints and angles, raw and smoothed
python jobs/evaluate_motion.py --frames 2000000        rows per second on one core, and peak memory
"""

import argparse
import resource
import sys
import time
from collections.abc import Sequence

import numpy as np

from posebatch.core.motion_settings import MotionSettings
from posebatch.demo.walker import SCALE, STRIDE, Outfit, walk_cycle
from posebatch.evaluation.motion_errors import KPT_THR, Noise, all_seen, block_of, compare, noisy
from posebatch.motion.movement.series import Movement

HEIGHT_PX = 180.0
WALKER_M = 1.75
CYCLE_S = 1.1
SECONDS = 60
BLOCK = 1000
MEDIAN_PX = 3.6
"""Median error of the default networks on the demo's walkers."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, help="measure speed and memory on this many frames")
    parser.add_argument("--persons", type=int, default=2, help="in each frame, with --frames")
    parser.add_argument("--cutoff-hz", type=float, default=MotionSettings().cutoff_hz)
    options = parser.parse_args(arguments)
    if options.frames:
        measure_speed(options.frames, options.persons)
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


if __name__ == "__main__":
    sys.exit(main())
