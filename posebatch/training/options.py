"""What the command lines of both trainings have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from posebatch.core.errors import OutputError, TrainingError
from posebatch.models.networks.engines import resolve_device
from posebatch.training.launch import train_here, train_on_ray
from posebatch.training.loop import LoopSettings
from posebatch.training.recipes import Recipe


def add_common_options(parser: argparse.ArgumentParser, learning_rate: float) -> None:
    """Data, start, length and place of a training."""
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
        help=f"the highest (default: {learning_rate:g})",
    )
    parser.add_argument("--warmup-steps", type=int, default=100, metavar="N", help="steps in which it rises (100)")
    parser.add_argument("--constant-share", type=float, default=0.35, metavar="S", help="share before it falls (0.35)")
    parser.add_argument(
        "--backbone-rate", type=float, metavar="F", help="the backbone's, times (0.25; 1 from random weights)"
    )
    parser.add_argument(
        "--frozen-blocks", type=int, metavar="N", help="first blocks that do not learn (4; 0 from random weights)"
    )
    parser.add_argument(
        "--ema-decay", type=float, default=0.998, metavar="D", help="of the weights' running mean (0.998)"
    )
    parser.add_argument("--evaluate-every", type=int, default=500, metavar="N", help="steps between measurements (500)")
    parser.add_argument(
        "--checkpoint-every", type=int, default=100, metavar="N", help="steps between checkpoints (100)"
    )
    parser.add_argument("--log-every", type=int, default=20, metavar="N", help="steps between lines of progress (20)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random (default: 0)")
    parser.add_argument("--bf16", action="store_true", help="mixed precision: for GPUs, and processors with AMX")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to train (auto)")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="1: in this process (default); more: with Ray Train, on GPUs where there are any, else one core each",
    )


def loop_settings(chosen: argparse.Namespace) -> LoopSettings:
    """The loop's part of a command line."""
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


def backbone_settings(chosen: argparse.Namespace, trained_before: bool) -> dict[str, Any]:
    """How a backbone learns: what was asked for, else less and later than the rest where it has learnt before."""
    rate, frozen = (0.25, 4) if trained_before else (1.0, 0)
    return {
        "backbone_rate": rate if chosen.backbone_rate is None else chosen.backbone_rate,
        "frozen_blocks": frozen if chosen.frozen_blocks is None else chosen.frozen_blocks,
    }


def train_from_options(chosen: argparse.Namespace, recipe_of: Callable[[argparse.Namespace], Recipe]) -> None:
    """Train as the command line says, and print the result."""
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
