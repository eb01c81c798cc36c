"""Calibrate the scores of pose networks, so that a score is the share of right joints among those that score it.

    python jobs/calibrate_scores.py --pose NAME|PATH --data LABELS.json --images FOLDER
    python jobs/calibrate_scores.py --pose NAME|PATH --data DATA.parquet --half even

The curve is written into the record of the weight file. jobs/evaluate_pose.py --half odd measures it on other images.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from posebatch.core.errors import OutputError
from posebatch.core.scripts import run_script
from posebatch.evaluation.calibration import calibrated_record, write_calibration
from posebatch.evaluation.labels import HALVES, half_of
from posebatch.evaluation.readers import read_dataset
from posebatch.models.networks.engines import choose_placement


def main(arguments: Sequence[str] | None = None) -> int:
    """Calibrate; returns the exit code: 0 done, 2 usage, 1 other errors."""
    chosen = build_parser().parse_args(arguments)
    return run_script("calibrate_scores", lambda: calibrate(chosen))


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--pose", required=True, nargs="+", metavar="NAME|PATH", help="pose networks to calibrate")
    parser.add_argument("--data", required=True, type=Path, metavar="FILE", help="COCO keypoint JSON, or Parquet")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="the images, when --data is JSON")
    parser.add_argument("--half", choices=HALVES, help="of the images, only those with even or odd numbers")
    return parser


def calibrate(chosen: argparse.Namespace) -> None:
    """Fit and write the calibration of each network. Raises `PosebatchError`."""
    data = read_dataset(chosen.data, chosen.images)
    if chosen.half:
        data = half_of(data, chosen.half)
    placement = choose_placement("cpu", "fp32")
    for name in chosen.pose:
        record = calibrated_record(name, data, placement)
        try:
            written = write_calibration(name, record)
        except OSError as error:
            raise OutputError(f"{name}: its file cannot be written: {error}") from error
        print(f"{written.identity}, fitted to {data.name}")
        print("  " + ", ".join(f"{peak:g}: {score:g}" for peak, score in written.score_calibration))


if __name__ == "__main__":
    sys.exit(main())
