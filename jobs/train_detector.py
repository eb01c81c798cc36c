"""Train a person detector on pictures with marked persons, from random weights or from a trained detector.

    python jobs/train_detector.py --data LABELS.json --images FOLDER --start ssdlite_mobilenet_v2_320 \
        --validate VALIDATION.json --validate-images FOLDER --output out/training --name gym

After a kill the same command resumes from the last checkpoint; with more --steps it trains longer. The result is a
weight file for --detector, with its record; progress.png plots the loss and the accuracy.
"""

import sys
from collections.abc import Sequence

from posebatch.training.options import train_detector


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; returns the exit code."""
    return train_detector(arguments, __doc__)


if __name__ == "__main__":
    sys.exit(main())
