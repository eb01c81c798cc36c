"""The training of the larger embedded pose network, in stages that each start from the result of the last one.

1. ``head``: the deconvolutions learn on a backbone that keeps its weights.
2. ``whole``: everything from the backbone's sixth block on learns, at a constant rate, for as long as it is left to.

Batch norms of the backbone are folded; those of the head learn. The averaged weights of any checkpoint can be written
as a weight file. Sources of the recipe: docs/training.md.
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
"""In their order; each has a folder of its name."""


_FILES_NAME: Final = "files.json"


_INPUT_SIZE_WH: Final = (48 * HEATMAP_STRIDE, 64 * HEATMAP_STRIDE)


_BACKBONE_BLOCKS: Final = 18


_BATCH: Final = 16


_HEAD_STEPS: Final = 20_000 // _BATCH


_WHOLE_STEPS: Final = 1_000_000 // _BATCH


_EVALUATE_STEPS: Final = 3150
"""50,400 samples: the labelled images are looked at rarely, since each look chooses a little."""


_REPEATS: Final = (("coco_train2017", 6), ("flickr8k_quantumnaan", 3))
"""The sources with the best labels and the most varied pictures come more often."""


_AUGMENTATION: Final = PoseAugmentation(
    scale=0.25, rotation=0.35, rotation_degrees=30, half_body=0.25, shift=0.05, occlusion=0.15, colour=0.4
)


@dataclass(frozen=True)
class TrainingFiles:
    """The files from which the network learns."""

    data: Path
    """Parquet of persons; see `posebatch.training.pose_examples.read_pose_examples`."""
    labels: Path | None
    """Parquet of labels made anew for them."""
    backbone: Path
    """The backbone's weights, under torchvision's keys."""
    validation: Path | None
    """Labelled images to measure on."""


def remember_files(folder: Path, files: TrainingFiles | None) -> TrainingFiles:
    """The files of the training in ``folder``: ``files``, written down there, or those that were written down before.

    Raises `TrainingError` when there are none, and when ``files`` are others than before.
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
    """The recipe of one of `STAGES`. ``folder`` holds the folders of all stages."""
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
    """Train all stages, each from its last checkpoint on; returns the record of the result."""
    for stage in STAGES:
        recipe = recipe_of_stage(stage, files, folder)
        if stage != STAGES[-1] and (folder / stage / f"{NAME}.safetensors").exists():
            continue
        record = train_here(recipe, folder / stage, device)
    assert isinstance(record, PoseRecord)
    return record


def export_weights(files: TrainingFiles, folder: Path) -> Path:
    """Write the averaged weights of the last checkpoint as a weight file, and return its path.

    Raises `TrainingError` when there is no checkpoint.
    """
    begun = [stage for stage in STAGES if (folder / stage / CHECKPOINT_NAME).exists()]
    if not begun:
        raise TrainingError(f"{folder}: no checkpoint in it yet; wait until the training has written its first one")
    finish(recipe_of_stage(begun[-1], files, folder), folder / begun[-1])
    return folder / begun[-1] / f"{NAME}.safetensors"
