"""The command lines of ``jobs/train_pose.py`` and ``jobs/train_detector.py``, from flags to recipes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from posebatch.core.errors import OutputError, TrainingError
from posebatch.core.extras import need
from posebatch.core.scripts import run_script
from posebatch.models.networks.engines import resolve_device
from posebatch.models.weights.names import EMBEDDED, resolve
from posebatch.models.weights.records import POSE_ARCHITECTURES, SSDLITE_ARCHITECTURES
from posebatch.training.detector_augmentation import SceneAugmentation
from posebatch.training.detector_task import DetectorTaskSettings
from posebatch.training.launch import train_here, train_on_ray
from posebatch.training.loop import LoopSettings
from posebatch.training.pose_augmentation import PoseAugmentation
from posebatch.training.pose_task import BatchNorms, PoseTaskSettings
from posebatch.training.recipes import DetectorRecipe, PoseRecipe, Recipe


def train_pose(arguments: Sequence[str] | None, description: str | None) -> int:
    """Train a pose network; returns the exit code: 0 done, 2 usage, 1 other errors."""
    chosen = pose_parser(description).parse_args(arguments)
    return run_script("train_pose", lambda: _train(chosen, pose_recipe))


def train_detector(arguments: Sequence[str] | None, description: str | None) -> int:
    """Train a detector; returns the exit code: 0 done, 2 usage, 1 other errors."""
    chosen = detector_parser(description).parse_args(arguments)
    return run_script("train_detector", lambda: _train(chosen, detector_recipe))


# Pose networks


def pose_parser(description: str | None = None) -> argparse.ArgumentParser:
    """The command line of ``train_pose``."""
    parser = _parser(description, learning_rate=1e-3)
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
        "--crops-on-device", action="store_true", help="crop and augment persons on the network's device: for GPUs"
    )
    parser.add_argument(
        "--batch-norms",
        choices=get_args(BatchNorms),
        help="which learn: none, as they are folded (default with --start); the head's; all (default without)",
    )
    parser.add_argument(
        "--repeat", nargs="*", type=_times, default=(), metavar="SOURCE=N", help="persons of that column source N times"
    )
    _add_augmentation(parser, PoseAugmentation())
    return parser


def pose_recipe(chosen: argparse.Namespace) -> PoseRecipe:
    """The recipe of a parsed command line. Raises `WeightsError` and ``ValueError``."""
    architecture = chosen.architecture or (resolve("pose", chosen.start).architecture if chosen.start else "resnet50")
    augmentation = PoseAugmentation(**{name: getattr(chosen, name) for name in vars(PoseAugmentation())})
    task = PoseTaskSettings(
        **_backbone_settings(chosen, trained_before=bool(chosen.start or chosen.backbone)),
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
        loop=_loop_settings(chosen),
        repeats=tuple(chosen.repeat),
        validation=chosen.validate,
        validation_images=chosen.validate_images,
        task=task,
        augmentation=augmentation,
        licence=chosen.licence,
    )


def _times(text: str) -> tuple[str, int]:
    source, _, count = text.rpartition("=")
    if not source or not count.isdecimal():
        raise argparse.ArgumentTypeError(f"wanted SOURCE=N, got {text!r}")
    return source, int(count)


# Detectors


def detector_parser(description: str | None = None) -> argparse.ArgumentParser:
    """The command line of ``train_detector``."""
    parser = _parser(description, learning_rate=5e-4)
    parser.add_argument(
        "--start", metavar="NAME|PATH", help=f"detector to train further, e.g. {EMBEDDED['detector'][0]}"
    )
    parser.add_argument("--architecture", choices=SSDLITE_ARCHITECTURES, help="default: that of --start, else the last")
    parser.add_argument(
        "--persons", type=Path, metavar="FILE", help="person crops to mix in, Parquet as for train_pose"
    )
    parser.add_argument(
        "--persons-source", nargs="*", default=(), metavar="S", help="only these of them, by column source"
    )
    parser.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="--data comes N times for each time --persons comes (1)"
    )
    parser.add_argument(
        "--box-weight", type=float, default=2.0, metavar="W", help="weight of the box loss beside the class loss (2)"
    )
    _add_augmentation(parser, SceneAugmentation())
    return parser


def detector_recipe(chosen: argparse.Namespace) -> DetectorRecipe:
    """The recipe of a parsed command line. Raises `WeightsError` and ``ValueError``."""
    started = resolve("detector", chosen.start).architecture if chosen.start else SSDLITE_ARCHITECTURES[-1]
    augmentation = SceneAugmentation(**{name: getattr(chosen, name) for name in vars(SceneAugmentation())})
    task = DetectorTaskSettings(
        **_backbone_settings(chosen, trained_before=bool(chosen.start)),
        box_weight=chosen.box_weight,
        fold_batch_norms=chosen.start is not None,
    )
    return DetectorRecipe(
        name=chosen.name,
        data=chosen.data,
        images=chosen.images,
        start=chosen.start,
        architecture=chosen.architecture or started,
        loop=_loop_settings(chosen),
        persons=chosen.persons,
        persons_sources=tuple(chosen.persons_source),
        repeat=chosen.repeat,
        validation=chosen.validate,
        validation_images=chosen.validate_images,
        task=task,
        augmentation=augmentation,
        licence=chosen.licence,
    )


# Shared


def _parser(description: str | None, learning_rate: float) -> argparse.ArgumentParser:
    """A parser with the flags of both trainings: data, length, learning rate, output."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data", required=True, type=Path, metavar="FILE", help="COCO JSON, or Parquet")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="the images, when --data is JSON")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="checkpoint, progress and result")
    parser.add_argument("--name", default="mine", help="of the result: FOLDER/NAME.safetensors (default: mine)")
    parser.add_argument("--licence", default="not stated", help="of the result, for its record")
    parser.add_argument("--validate", type=Path, metavar="FILE", help="labelled images to measure on, JSON or Parquet")
    parser.add_argument("--validate-images", type=Path, metavar="FOLDER", help="the images, when --validate is JSON")
    parser.add_argument("--steps", type=int, default=5000, metavar="N", help="batches to learn from (default: 5000)")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="examples in a batch (default: 32)")
    parser.add_argument(
        "--learning-rate",
        type=float,
        default=learning_rate,
        metavar="R",
        help=f"highest learning rate (default: {learning_rate:g})",
    )
    parser.add_argument(
        "--warmup-steps", type=int, default=100, metavar="N", help="steps in which the rate rises (100)"
    )
    parser.add_argument(
        "--constant-share", type=float, default=0.35, metavar="S", help="share of the steps before it falls (0.35)"
    )
    parser.add_argument(
        "--backbone-rate", type=float, metavar="F", help="factor on the backbone's rate (0.25; 1 from random weights)"
    )
    parser.add_argument(
        "--frozen-blocks", type=int, metavar="N", help="first blocks that do not learn (4; 0 from random weights)"
    )
    parser.add_argument(
        "--ema-decay", type=float, default=0.998, metavar="D", help="decay of the weights' running mean (0.998)"
    )
    parser.add_argument("--evaluate-every", type=int, default=500, metavar="N", help="steps between measurements (500)")
    parser.add_argument(
        "--checkpoint-every", type=int, default=100, metavar="N", help="steps between checkpoints (100)"
    )
    parser.add_argument("--log-every", type=int, default=20, metavar="N", help="steps between lines of progress (20)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of all random choices (default: 0)")
    parser.add_argument("--bf16", action="store_true", help="mixed precision: for GPUs, and processors with AMX")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to train (auto)")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="1: in this process (default); more: with Ray Train, on GPUs if there are any, else one core each",
    )
    return parser


def _add_augmentation(parser: argparse.ArgumentParser, defaults: PoseAugmentation | SceneAugmentation) -> None:
    for name, default in vars(defaults).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=default, help=f"default: {default:g}")


def _loop_settings(chosen: argparse.Namespace) -> LoopSettings:
    return LoopSettings(
        steps=chosen.steps,
        batch_size=chosen.batch_size,
        learning_rate=chosen.learning_rate,
        warmup_steps=chosen.warmup_steps,
        constant_share=chosen.constant_share,
        ema_decay=chosen.ema_decay,
        log_every=chosen.log_every,
        evaluate_every=chosen.evaluate_every,
        checkpoint_every=chosen.checkpoint_every,
        seed=chosen.seed,
        bf16=chosen.bf16,
    )


def _backbone_settings(chosen: argparse.Namespace, trained_before: bool) -> dict[str, Any]:
    """Learning rate and frozen blocks of the backbone. A trained backbone learns less than the head by default."""
    rate, frozen = (0.25, 4) if trained_before else (1.0, 0)
    return {
        "backbone_rate": rate if chosen.backbone_rate is None else chosen.backbone_rate,
        "frozen_blocks": frozen if chosen.frozen_blocks is None else chosen.frozen_blocks,
    }


def _train(chosen: argparse.Namespace, recipe_of: Callable[[argparse.Namespace], Recipe]) -> None:
    need("matplotlib", "pycocotools")
    if chosen.workers < 1:
        raise TrainingError(f"--workers must be at least 1, got {chosen.workers}")
    try:
        recipe = recipe_of(chosen)
        chosen.output.mkdir(parents=True, exist_ok=True)
    except ValueError as error:
        raise TrainingError(str(error)) from error
    except OSError as error:
        raise OutputError(f"{chosen.output}: cannot be made ({error}); choose another --output") from error
    if chosen.workers > 1:
        record = train_on_ray(recipe, chosen.output, chosen.workers, chosen.device)
    else:
        record = train_here(recipe, chosen.output, resolve_device(chosen.device))
    figures = ", ".join(f"{key} {value}" for key, value in record.accuracy.items()) or "not measured: no --validate"
    print(f"{chosen.output / record.name}.safetensors: {figures}")
