"""Score the tracks of an output against true identities.

    python jobs/evaluate_tracks.py --truth IDENTITY/*.csv --output OUT
    python jobs/evaluate_tracks.py --truth street.csv --output OUT --linker global --true-boxes

A truth file is called like its video and has a line for each person in each frame: frame_index, id, span, x1, y1, x2,
y2, visible; id 0 is a region to ignore. Frames count from its first to its last. Prints IDF1, the best IDF1 that true
ids on the same boxes give, switches and fragmentations. Boxes without a track are left out.
"""

import sys
from collections.abc import Sequence

from posebatch.evaluation.track_command import evaluate_tracks


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    return evaluate_tracks(arguments, __doc__)


if __name__ == "__main__":
    sys.exit(main())
