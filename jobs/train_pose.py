"""Train a pose network on labelled persons: from random weights, from a backbone, or from a trained network.

    python jobs/train_pose.py --data LABELS.json --images FOLDER --start simplebaseline_mobilenet_v2_w175_256x192 \
        --validate VALIDATION.json --validate-images FOLDER --output out/training --name ski

After a kill the same command resumes from the last checkpoint; with more --steps it trains longer. The result is a
weight file for --pose, with its record; progress.png plots the loss and the accuracy.
"""

import sys
from collections.abc import Sequence

from posebatch.training.options import train_pose


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; returns the exit code."""
    return train_pose(arguments, __doc__)


if __name__ == "__main__":
    sys.exit(main())
