"""Count the persons that a detector finds, by height, on labelled images or on a video.

    python jobs/evaluate_boxes.py --data DATA.parquet --tiles 2x4
    python jobs/evaluate_boxes.py --video VIDEO --truth TRUTH.csv --stride 5 --preset far

The detector runs as it does in a run with the same settings. A truth file has a line for each person in each frame:
frame_index, id, x1, y1, x2, y2, visible; id 0 is a region to ignore. Frames count from its first to its last. Prints
persons, recall and false boxes for each height.
"""

import sys
from collections.abc import Sequence

from posebatch.evaluation.commands import evaluate_boxes


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    return evaluate_boxes(arguments, __doc__)


if __name__ == "__main__":
    sys.exit(main())
