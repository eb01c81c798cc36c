"""Count the persons found with and without --recover-flow on a video with known boxes, and the cost in speed.

    python jobs/evaluate_flow.py --videos VIDEOS --truth TRUTHS [--threads 1] [--bbox-thr 0.3] [--clip NAME]...

TRUTHS is a folder of truth files `<clip>.csv` (see evaluate_boxes.py), VIDEOS the folder of the clips. The estimator
runs as in a run, so boxes count after its pose network dropped duplicates.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from posebatch.core.images import FrameBatch
from posebatch.core.settings import EstimatorSettings, SamplingSettings
from posebatch.core.text_table import text_table
from posebatch.core.videos import Segment
from posebatch.evaluation.boxes_found import NOBODY, BoxCounts, count_boxes, read_truth
from posebatch.pose.estimator import PoseEstimator
from posebatch.pose.stage_clock import StageClock
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", required=True, type=Path)
    parser.add_argument("--truth", required=True, type=Path)
    parser.add_argument("--clip", action="append", help="only this clip; repeatable")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bbox-thr", type=float, default=EstimatorSettings.bbox_thr)
    parser.add_argument("--detect-every", type=int, default=1)
    parser.add_argument("--max-frames", type=int, default=sys.maxsize)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    settings = EstimatorSettings(bbox_thr=chosen.bbox_thr, detect_every=chosen.detect_every)
    estimators = {
        name: PoseEstimator.load(replace(settings, recover_flow=recover), "cpu")
        for name, recover in (("off", False), ("on", True))
    }
    rows, totals = [], {name: BoxCounts.zero() for name in estimators}
    for truth in sorted(chosen.truth.glob("*.csv")):
        if chosen.clip and truth.stem not in chosen.clip:
            continue
        (video,) = chosen.videos.glob(f"{truth.stem}.*")
        for name, estimator in estimators.items():
            counts, frames_per_second = _measure(estimator, video, truth, chosen.max_frames)
            totals[name] += counts
            rows.append([truth.stem, name, *_figures(counts), f"{frames_per_second:.1f}"])
            print(*rows[-1], file=sys.stderr, flush=True)
    rows += [["all", name, *_figures(counts), ""] for name, counts in totals.items()]
    print(text_table(["clip", "recover", "persons", "found", "false", "recall", "precision", "frames/s"], rows))
    return 0


def _measure(estimator: PoseEstimator, video: Path, truth: Path, max_frames: int) -> tuple[BoxCounts, float]:
    truths = read_truth(truth)
    counts, clock, frames, started = BoxCounts.zero(), StageClock(), 0, time.perf_counter()
    last = min(max(truths), max_frames)
    for poses in estimator.estimate(_decode(estimator, video, last), clock):
        frames += 1
        if min(truths) <= poses.record.frame_index <= last:
            counts += count_boxes(truths.get(poses.record.frame_index, NOBODY), poses.bbox_xyxy)
    return counts, frames / (time.perf_counter() - started)


def _decode(estimator: PoseEstimator, video: Path, last: int) -> Iterator[FrameBatch]:
    """Batches up to the one with frame ``last``."""
    with video.open("rb") as file:
        info = probe(file, str(video), math.inf).info
        options = DecodeOptions(
            SamplingSettings(), estimator.batch_frames, group_frames=estimator.settings.group_frames
        )
        for batch in SegmentDecoder(file, str(video), Segment(), info, options):
            yield batch
            if batch.records[-1].frame_index >= last:
                return


def _figures(counts: BoxCounts) -> list[str]:
    persons, found, false = int(counts.persons.sum()), int(counts.found.sum()), int(counts.false.sum())
    return [
        *(str(number) for number in (persons, found, false)),
        f"{found / max(persons, 1):.4f}",
        f"{found / max(found + false, 1):.4f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
