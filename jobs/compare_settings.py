"""Compare the persons that different settings give on the same videos with those of reference settings.

    python jobs/compare_settings.py VIDEO... --detect-every 1 2 5 10
    python jobs/compare_settings.py VIDEO... --precision fp32 bf16 --frames 100 --json out/precision.json
    python jobs/compare_settings.py VIDEO... --planes

Every option takes several values. The first values are the reference. Each other value is compared with it alone, all
other options as in the reference. --planes compares frames that stay in the decoder's planes, as on a GPU, with frames
converted to RGB first. Speed is that of the networks without decoding; its ratio is of this run.
"""

import sys
from collections.abc import Sequence

from posebatch.evaluation.commands import compare_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare and print; returns the exit code."""
    return compare_settings(arguments, __doc__)


if __name__ == "__main__":
    sys.exit(main())
