"""Measure networks on labelled images: COCO's AP, PCK and joint errors, and the detector's recall and precision.

    python jobs/evaluate_pose.py --data LABELS.json --images FOLDER        poses in the labelled boxes
    python jobs/evaluate_pose.py --data DATA.parquet --boxes gt detector   and from end to end, with the detector
    python jobs/evaluate_pose.py ... --boxes DETECTIONS.json               in the boxes of a detection file

Writes accuracy.json, accuracy.png and, with --pictures, sheets of persons to look at into --output.
"""

import sys
from collections.abc import Sequence

from posebatch.evaluation.commands import evaluate_pose


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; returns the exit code."""
    return evaluate_pose(arguments, __doc__)


if __name__ == "__main__":
    sys.exit(main())
