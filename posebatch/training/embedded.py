"""The training of the larger embedded pose network, in two stages. The second starts from the result of the first.

1. ``head``: the deconvolutions learn; the backbone is frozen.
2. ``whole``: all blocks from the backbone's sixth on learn, at a constant rate, until the training is stopped.

Batch norms of the backbone are folded; those of the head learn. `export_weights` writes the averaged weights of the
last checkpoint as a weight file. docs/training.md has the sources of the recipe.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from posebatch.core.errors import TrainingError
from posebatch.models.networks.pose_resnet import HEATMAP_STRIDE
from posebatch.models.weights.records import PoseRecord
from posebatch.training.launch import finish, train_here
from posebatch.training.loop import CHECKPOINT_NAME, LoopSettings
from posebatch.training.pose_augmentation import PoseAugmentation
from posebatch.training.pose_task import PoseTaskSettings
from posebatch.training.recipes import PoseRecipe

NAME: Final = "simplebaseline_mobilenet_v2_w175_256x192"


ARCHITECTURE: Final = "mobilenet_v2_w175_d128_centred"


STAGES: Final = ("head", "whole")
"""In their order. Each has a folder of its name."""


_FILES_NAME: Final = "files.json"


_INPUT_SIZE_WH: Final = (48 * HEATMAP_STRIDE, 64 * HEATMAP_STRIDE)


_BACKBONE_BLOCKS: Final = 18


_BATCH: Final = 16


_HEAD_STEPS: Final = 20_000 // _BATCH


_WHOLE_STEPS: Final = 1_000_000 // _BATCH


_EVALUATE_STEPS: Final = 3150
"""50,400 samples. Measuring rarely keeps the choice among checkpoints from fitting the validation images."""


_REPEATS: Final = (("coco_train2017", 6), ("flickr8k_quantumnaan", 3))
"""Sources with the best labels and the most varied pictures, repeated in each round."""


_AUGMENTATION: Final = PoseAugmentation(
    scale=0.25, rotation=0.35, rotation_degrees=30, half_body=0.25, shift=0.05, occlusion=0.15, colour=0.4
)


@dataclass(frozen=True)
class TrainingFiles:
    """The files of a training."""

    data: Path
    """Parquet of persons; see `posebatch.training.pose_examples.read_pose_examples`."""
    labels: Path | None
    """Parquet of new labels for them."""
    backbone: Path
    """Weights of the backbone, with torchvision's keys."""
    validation: Path | None
    """Labelled images for measurements."""


def remember_files(folder: Path, files: TrainingFiles | None) -> TrainingFiles:
    """Store ``files`` in ``folder`` for later starts, or return the stored files if ``files`` is None.

    Raises `TrainingError` if nothing is stored, or if ``files`` differ from the stored ones.
    """
    path = folder / _FILES_NAME
    known = None
    if path.exists():
        body = json.loads(path.read_text())
        known = TrainingFiles(
            **{field.name: body[field.name] and Path(body[field.name]) for field in fields(TrainingFiles)}
        )
    if files is None:
        if known is None:
            raise TrainingError(f"{folder}: no training was begun there; begin one with --data and --backbone")
        return known
    absolute = TrainingFiles(**{name: value and value.resolve() for name, value in vars(files).items()})
    if known is not None and known != absolute:
        raise TrainingError(f"{folder}: the training there has other files ({path}); choose another --output")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({name: value and str(value) for name, value in asdict(absolute).items()}, indent=1))
    return absolute


def recipe_of_stage(stage: str, files: TrainingFiles, folder: Path) -> PoseRecipe:
    """The recipe of one of `STAGES`. ``folder`` is the parent of the stages' folders."""
    head = stage == "head"
    loop = LoopSettings(
        steps=_HEAD_STEPS if head else _WHOLE_STEPS,
        batch_size=_BATCH,
        learning_rate=1e-3,
        warmup_steps=50 if head else 300,
        constant_share=0.6 if head else 1.0,
        ema_decay=0.998 if head else 0.9995,
        log_every=20 if head else 50,
        evaluate_every=_HEAD_STEPS if head else _EVALUATE_STEPS,
        checkpoint_every=50 if head else 100,
        bf16=True,
    )
    return PoseRecipe(
        name=NAME,
        data=files.data,
        images=None,
        labels=files.labels,
        start=None if head else str(folder / "head" / f"{NAME}.safetensors"),
        backbone=str(files.backbone) if head else None,
        architecture=ARCHITECTURE,
        input_size_wh=_INPUT_SIZE_WH,
        loop=loop,
        repeats=_REPEATS,
        validation=files.validation,
        task=PoseTaskSettings(backbone_rate=0.25, batch_norms="head", frozen_blocks=_BACKBONE_BLOCKS if head else 5),
        augmentation=_AUGMENTATION,
    )


def train_stages(files: TrainingFiles, folder: Path, device: str) -> PoseRecord:
    """Train all stages, resuming from the last checkpoint; returns the record of the result."""
    for stage in STAGES:
        recipe = recipe_of_stage(stage, files, folder)
        if stage != STAGES[-1] and (folder / stage / f"{NAME}.safetensors").exists():
            continue
        record = train_here(recipe, folder / stage, device)
    assert isinstance(record, PoseRecord)
    return record


def export_weights(files: TrainingFiles, folder: Path) -> Path:
    """Write the averaged weights of the last checkpoint as a weight file; returns its path.

    Raises `TrainingError` without a checkpoint.
    """
    begun = [stage for stage in STAGES if (folder / stage / CHECKPOINT_NAME).exists()]
    if not begun:
        raise TrainingError(f"{folder}: no checkpoint in it yet; wait until the training has written its first one")
    finish(recipe_of_stage(begun[-1], files, folder), folder / begun[-1])
    return folder / begun[-1] / f"{NAME}.safetensors"
