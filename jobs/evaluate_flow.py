"""Count the persons found with and without --recover-flow on videos with known boxes, and the cost in speed.

    python jobs/evaluate_flow.py --videos VIDEOS --truth TRUTHS

TRUTHS is a folder of truth files `<clip>.csv` (see evaluate_boxes.py), VIDEOS the folder of the clips. Both networks
run as in a run, so boxes count after duplicate poses are dropped. Speed is in frames per second of CPU time, with
decoding: other processes do not slow it down.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from posebatch.core.images import FrameBatch
from posebatch.core.settings import EstimatorSettings, SamplingSettings
from posebatch.core.text_table import text_table
from posebatch.evaluation.boxes_found import NOBODY, BoxCounts, count_boxes, read_truth
from posebatch.evaluation.video_batches import batches_until
from posebatch.pose.estimator import PoseEstimator
from posebatch.video.options import DecodeOptions


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--truth", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--clip", action="append", metavar="NAME", help="only this clip; repeatable")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of the networks (default: 1)")
    parser.add_argument("--bbox-thr", type=float, default=EstimatorSettings.bbox_thr, metavar="X")
    parser.add_argument("--detect-every", type=int, default=1, metavar="N")
    parser.add_argument("--frames", type=int, default=sys.maxsize, metavar="N", help="only the first N of each clip")
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
            counts, frames_per_second = _measure(estimator, video, truth, chosen.frames - 1)
            totals[name] += counts
            rows.append([truth.stem, name, *_figures(counts), f"{frames_per_second:.1f}"])
            print(*rows[-1], file=sys.stderr, flush=True)
    rows += [["all", name, *_figures(counts), ""] for name, counts in totals.items()]
    print(text_table(["clip", "recover", "persons", "found", "false", "recall", "precision", "frames/CPU s"], rows))
    return 0


def _measure(estimator: PoseEstimator, video: Path, truth: Path, most: int) -> tuple[BoxCounts, float]:
    truths = read_truth(truth)
    counts, frames, started = BoxCounts.zero(), 0, time.process_time()
    last = min(max(truths), most)
    for poses in estimator.estimate(_decode(estimator, video, last)):
        frames += 1
        if min(truths) <= poses.record.frame_index <= last:
            counts += count_boxes(truths.get(poses.record.frame_index, NOBODY), poses.bbox_xyxy)
    return counts, frames / (time.process_time() - started)


def _decode(estimator: PoseEstimator, video: Path, last: int) -> Iterator[FrameBatch]:
    """Batches up to the one with frame ``last``."""
    options = DecodeOptions(SamplingSettings(), estimator.batch_frames, group_frames=estimator.settings.group_frames)
    return (batch for batch, _ in batches_until(video, options, last))


def _figures(counts: BoxCounts) -> list[str]:
    persons, found, false = int(counts.persons.sum()), int(counts.found.sum()), int(counts.false.sum())
    return [
        *(str(number) for number in (persons, found, false)),
        f"{found / max(persons, 1):.4f}",
        f"{found / max(found + false, 1):.4f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
