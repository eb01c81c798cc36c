"""Draw one frame of a video as it is and mirrored, each with the joints that are found in it.

    python jobs/draw_mirrored.py demo/input/sample.mp4 docs/mirrored.png --frame 60

The joints are those of the displayed picture: a left hand of the first one is a right hand of the second one.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import posebatch
from posebatch.core.errors import UsageError
from posebatch.core.frames import FrameRecord
from posebatch.core.images import FrameBatch
from posebatch.core.scripts import run_script
from posebatch.core.settings import EstimatorSettings
from posebatch.pose.estimator import PoseEstimator
from posebatch.report.drawing import DRAWING_THRESHOLDS, draw_skeletons

WIDTH = 800
"""Pixels."""


def frame_of(video: str, number: int) -> tuple[FrameRecord, NDArray[np.uint8]]:
    """A frame, RGB (height, width, 3), with its record. Raises `UsageError` if the video has no such frame."""
    for batch in posebatch.decode(video, batch_frames=1):
        if batch.records[0].frame_index == number and len(batch.images):
            return batch.records[0], np.asarray(batch.images)[0]
    raise UsageError(f"{video}: no frame {number}")


def draw(video: str, picture: str, number: int) -> None:
    """Write both frames side by side as a PNG of 128 colours, `WIDTH` pixels wide."""
    record, image = frame_of(video, number)
    estimator = PoseEstimator.load(EstimatorSettings(), "cpu")
    drawn = []
    for shown in (image, np.ascontiguousarray(image[:, ::-1])):
        (poses,) = estimator.estimate([FrameBatch((record,), shown[None])])
        drawn.append(draw_skeletons(shown, poses.keypoints, DRAWING_THRESHOLDS))
    both = Image.fromarray(np.concatenate(drawn, axis=1))
    reduced = both.resize((WIDTH, both.height * WIDTH // both.width), Image.Resampling.LANCZOS)
    reduced.quantize(128).save(picture, optimize=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("picture", help="PNG to write")
    parser.add_argument("--frame", type=int, default=0, metavar="N", help="index of the frame, from 0 (default: 0)")
    chosen = parser.parse_args(arguments)
    return run_script("draw_mirrored", lambda: draw(chosen.video, chosen.picture, chosen.frame))


if __name__ == "__main__":
    sys.exit(main())
