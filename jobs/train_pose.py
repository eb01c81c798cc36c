"""Train a pose network on labelled persons: from nothing, from a backbone, or further from one that exists.

    python jobs/train_pose.py --data LABELS.json --images FOLDER --start simplebaseline_mobilenet_v2_256x192 \
        --validate VALIDATION.json --validate-images FOLDER --output out/training --name ski

The same command goes on where it was killed; with more --steps it trains longer. The result is a weight file for
--pose, with its record; progress.png shows how it went.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from posebatch.cli.entry import run_script
from posebatch.models.weights.names import EMBEDDED, resolve
from posebatch.models.weights.records import POSE_ARCHITECTURES
from posebatch.training.options import add_common_options, backbone_settings, loop_settings, train_from_options
from posebatch.training.pose_augmentation import PoseAugmentation
from posebatch.training.pose_task import BatchNorms, PoseTaskSettings
from posebatch.training.recipes import PoseRecipe


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; returns 0, or 2 when it cannot be done as asked, or 1."""
    chosen = build_parser().parse_args(arguments)
    return run_script("train_pose", lambda: train_from_options(chosen, recipe_of))


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_common_options(parser, learning_rate=1e-3)
    parser.add_argument(
        "--start", metavar="NAME|PATH", help=f"pose network to train further, e.g. {EMBEDDED['pose'][0]}"
    )
    parser.add_argument(
        "--backbone",
        metavar="NAME|PATH",
        help="only the backbone: a torchvision classifier such as resnet50, or a file",
    )
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="Parquet with keypoints that replace those of --data, row by row"
    )
    parser.add_argument("--architecture", choices=POSE_ARCHITECTURES, help="default: that of --start, else resnet50")
    parser.add_argument(
        "--input-size", type=int, nargs=2, default=(192, 256), metavar=("W", "H"), help="default: 192 256"
    )
    parser.add_argument("--cross-entropy", type=float, default=0.3, metavar="W", help="beside the squared error (0.3)")
    parser.add_argument(
        "--crops-on-device", action="store_true", help="cut out and vary persons where the network is: for GPUs"
    )
    parser.add_argument(
        "--batch-norms",
        choices=get_args(BatchNorms),
        help="which learn: none, as they are folded (default with --start); the head's; all (default without)",
    )
    parser.add_argument(
        "--repeat", nargs="*", type=_times, default=(), metavar="SOURCE=N", help="persons of that column source N times"
    )
    for name, default in vars(PoseAugmentation()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=default, help=f"default: {default:g}")
    return parser


def _times(text: str) -> tuple[str, int]:
    source, _, count = text.rpartition("=")
    if not source or not count.isdecimal():
        raise argparse.ArgumentTypeError(f"wanted SOURCE=N, got {text!r}")
    return source, int(count)


def recipe_of(chosen: argparse.Namespace) -> PoseRecipe:
    """The recipe that a command line asks for. Raises `WeightsError` and ``ValueError``."""
    architecture = chosen.architecture or (resolve("pose", chosen.start).architecture if chosen.start else "resnet50")
    augmentation = PoseAugmentation(**{name: getattr(chosen, name) for name in vars(PoseAugmentation())})
    task = PoseTaskSettings(
        **backbone_settings(chosen, trained_before=bool(chosen.start or chosen.backbone)),
        cross_entropy=chosen.cross_entropy,
        crops_on_device=chosen.crops_on_device,
        batch_norms=chosen.batch_norms or ("all" if chosen.start is None else "folded"),
    )
    return PoseRecipe(
        name=chosen.name,
        data=chosen.data,
        images=chosen.images,
        labels=chosen.labels,
        start=chosen.start,
        backbone=chosen.backbone,
        architecture=architecture,
        input_size_wh=tuple(chosen.input_size),
        loop=loop_settings(chosen),
        repeats=tuple(chosen.repeat),
        validation=chosen.validate,
        validation_images=chosen.validate_images,
        task=task,
        augmentation=augmentation,
        licence=chosen.licence,
    )


if __name__ == "__main__":
    sys.exit(main())
