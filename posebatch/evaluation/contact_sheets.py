"""Contact sheets of persons: the estimated pose beside the labelled one, for the worst persons and some others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from posebatch.core.frames import FramePoses
from posebatch.evaluation.joints import PairedPoses, pair_poses
from posebatch.evaluation.labels import LabelledDataset, LabelledImage
from posebatch.pose.crops import crop_regions, grid_to_frame, invert_affine
from posebatch.report.drawing import draw_skeletons

TILE_WH: Final = (192, 256)
"""Width and height of one tile, pixels."""


_COLUMNS: Final = 4
"""Persons in a row, two tiles each."""


_CAPTION: Final = 14
"""Height of the caption above a person, pixels."""


_SEED: Final = 0
"""Seed of the random choice: sheets of two networks show the same persons."""


def write_sheet(dataset: LabelledDataset, poses: Sequence[FramePoses], count: int, kpt_thr: float, path: Path) -> None:
    """Draw the ``count`` persons of lowest OKS, then as many others: the estimate on the left, the label on the right.

    Writes nothing if no person is labelled.
    """
    pairs = pair_poses(dataset, poses)
    chosen = choose_persons(pairs.oks, count)
    if not len(chosen):
        return
    width, height = 2 * TILE_WH[0], TILE_WH[1] + _CAPTION
    sheet = Image.new("RGB", (width * min(_COLUMNS, len(chosen)), height * -(-len(chosen) // _COLUMNS)), "white")
    for position, index in enumerate(chosen):
        row, column = divmod(position, _COLUMNS)
        picture = _draw_person(dataset.images[pairs.image[index]], pairs, index, kpt_thr)
        sheet.paste(picture, (column * width, row * height))
    sheet.save(path)


def choose_persons(oks: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Indices of the ``count`` lowest values, then of up to as many others, chosen at random."""
    by_oks = np.argsort(oks, kind="stable")
    others = np.random.default_rng(_SEED).permutation(by_oks[count:])
    return np.concatenate([by_oks[:count], others[:count]])


def _draw_person(image: LabelledImage, pairs: PairedPoses, index: np.intp, kpt_thr: float) -> Image.Image:
    box = image.persons.bbox_xyxy[[pairs.person[index]]]
    region = crop_regions(box, TILE_WH[0] / TILE_WH[1])
    to_frame = grid_to_frame(region, TILE_WH)
    tile = Image.fromarray(image.pixels()).transform(
        # Pillow's coordinates count from a pixel's edge, ours from its centre: hence + 0.5
        TILE_WH,
        Image.Transform.EXTENT,
        tuple(np.concatenate([region[0, :2] - region[0, 2:] / 2, region[0, :2] + region[0, 2:] / 2]) + 0.5),
        Image.Resampling.BILINEAR,
    )
    pixels, to_tile = np.asarray(tile), invert_affine(to_frame)[0]
    picture = Image.new("RGB", (2 * TILE_WH[0], TILE_WH[1] + _CAPTION), "white")
    for left, pose, threshold in ((0, pairs.estimate[index], kpt_thr), (TILE_WH[0], pairs.truth[index], 0.0)):
        drawn = _draw_pose(pixels, pose, to_tile, threshold)
        picture.paste(Image.fromarray(drawn), (left, _CAPTION))
    caption = f"OKS {pairs.oks[index]:.2f}  {image.name}" if pairs.found[index] else f"not found  {image.name}"
    ImageDraw.Draw(picture).text((2, 1), caption, fill="black")
    return picture


def _draw_pose(
    pixels: NDArray[np.uint8], pose: NDArray[np.float64], to_tile: NDArray[np.float64], kpt_thr: float
) -> NDArray[np.uint8]:
    if np.isnan(pose).any():
        return pixels
    on_tile = pose[:, :2] @ to_tile[:, :2].T + to_tile[:, 2]
    return draw_skeletons(pixels, np.concatenate([on_tile, pose[:, 2:]], axis=1)[None].astype(np.float32), kpt_thr)
