"""Train a person detector on pictures with marked persons, further from one that exists.

    python jobs/train_detector.py --data LABELS.json --images FOLDER --start ssdlite_mobilenet_v2_320 \
        --validate VALIDATION.json --validate-images FOLDER --output out/training --name gym

The same command goes on where it was killed; with more --steps it trains longer. The result is a weight file for
--detector, with its record; progress.png shows how it went.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from posebatch.cli.entry import run_script
from posebatch.models.weights.names import EMBEDDED, resolve
from posebatch.models.weights.records import SSDLITE_ARCHITECTURES
from posebatch.training.detector_augmentation import SceneAugmentation
from posebatch.training.detector_task import DetectorTaskSettings
from posebatch.training.options import add_common_options, backbone_settings, loop_settings, train_from_options
from posebatch.training.recipes import DetectorRecipe


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; returns 0, or 2 when it cannot be done as asked, or 1."""
    chosen = build_parser().parse_args(arguments)
    return run_script("train_detector", lambda: train_from_options(chosen, recipe_of))


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_common_options(parser, learning_rate=5e-4)
    parser.add_argument(
        "--start", metavar="NAME|PATH", help=f"detector to train further, e.g. {EMBEDDED['detector'][0]}"
    )
    parser.add_argument("--architecture", choices=SSDLITE_ARCHITECTURES, help="default: that of --start, else the last")
    parser.add_argument(
        "--persons", type=Path, metavar="FILE", help="cut-out persons to mix in, Parquet as for train_pose"
    )
    parser.add_argument(
        "--persons-source", nargs="*", default=(), metavar="S", help="only these of them, by column source"
    )
    parser.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="--data comes N times for once --persons (1)"
    )
    parser.add_argument(
        "--box-weight", type=float, default=2.0, metavar="W", help="of the boxes beside the classes (2)"
    )
    for name, default in vars(SceneAugmentation()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=default, help=f"default: {default:g}")
    return parser


def recipe_of(chosen: argparse.Namespace) -> DetectorRecipe:
    """The recipe that a command line asks for. Raises `WeightsError` and ``ValueError``."""
    started = resolve("detector", chosen.start).architecture if chosen.start else SSDLITE_ARCHITECTURES[-1]
    augmentation = SceneAugmentation(**{name: getattr(chosen, name) for name in vars(SceneAugmentation())})
    task = DetectorTaskSettings(
        **backbone_settings(chosen, trained_before=bool(chosen.start)),
        box_weight=chosen.box_weight,
        fold_batch_norms=chosen.start is not None,
    )
    return DetectorRecipe(
        name=chosen.name,
        data=chosen.data,
        images=chosen.images,
        start=chosen.start,
        architecture=chosen.architecture or started,
        loop=loop_settings(chosen),
        persons=chosen.persons,
        persons_sources=tuple(chosen.persons_source),
        repeat=chosen.repeat,
        validation=chosen.validate,
        validation_images=chosen.validate_images,
        task=task,
        augmentation=augmentation,
        licence=chosen.licence,
    )


if __name__ == "__main__":
    sys.exit(main())
