"""Augmentation for detectors: crops, zoom-out, mosaics of four pictures, mirroring, colours."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from posebatch.training.detector_examples import SceneTargets
from posebatch.training.pose_augmentation import check_shares, vary_colours

_GREY: Final = (124, 116, 104)
"""Background of the canvas: the mean colour that the network subtracts."""


_LEAST_SHARE: Final = 0.4
"""A person of whom a smaller share is left becomes a region to ignore."""


_LEAST_SIDE: Final = 4.0
"""A box with a shorter side becomes a region to ignore, pixels of the canvas."""


@dataclass(frozen=True)
class SceneAugmentation:
    """Strength of the augmentation."""

    mosaic: float = 0.5
    """Probability that four pictures share the canvas."""
    crop: float = 0.6
    """Probability that a picture is cropped."""
    least_crop: float = 0.35
    """Smallest crop, as a share of width and of height."""
    zoom_out: float = 0.25
    """Probability that a single picture fills only a part of the canvas."""
    flip: float = 0.5
    """Probability that a picture is mirrored."""
    colour: float = 0.7
    """Probability that brightness, contrast and saturation change."""

    def __post_init__(self) -> None:
        check_shares(self)
        if self.least_crop == 0:
            raise ValueError("least_crop must be more than 0: nothing would be left of a picture")


Rectangle = tuple[float, float, float, float]
"""Left, top, right, bottom."""


ReadPicture = Callable[[], tuple[bytes, SceneTargets]]
"""Returns the next picture, encoded, and its persons."""


@dataclass(frozen=True)
class Canvas:
    """One training example for the network."""

    pixels: NDArray[np.uint8]
    """(size, size, 3) RGB."""
    targets: SceneTargets
    """Persons in pixels of the canvas."""


def compose(read: ReadPicture, size: int, augmentation: SceneAugmentation, random: np.random.Generator) -> Canvas:
    """Compose a square canvas of one picture or four. Pictures are stretched to fit, as in inference."""
    canvas = Image.new("RGB", (size, size), _GREY)
    tiles: list[Rectangle] = [(0, 0, size, size)]
    if random.random() < augmentation.mosaic:
        middle_x, middle_y = random.uniform(0.3, 0.7, 2) * size
        columns, rows = ((0, middle_x), (middle_x, size)), ((0, middle_y), (middle_y, size))
        tiles = [(left, top, right, bottom) for top, bottom in rows for left, right in columns]
    elif random.random() < augmentation.zoom_out:
        tiles = [_zoomed_out(size, random)]
    by_tile = [_paste(canvas, read, np.round(tile).astype(int), augmentation, random) for tile in tiles]
    boxes = np.concatenate([targets.boxes_xyxy for targets in by_tile])
    targets = SceneTargets(boxes, np.concatenate([targets.ignore for targets in by_tile]))
    return Canvas(vary_colours(canvas, augmentation.colour, random), targets)


def _zoomed_out(size: int, random: np.random.Generator) -> Rectangle:
    width, height = random.uniform(0.45, 0.9) * random.uniform(0.8, 1.0, 2) * size
    left, top = random.uniform(0, 1, 2) * (size - width, size - height)
    return left, top, left + width, top + height


def _paste(
    canvas: Image.Image,
    read: ReadPicture,
    tile: NDArray[np.int64],
    augmentation: SceneAugmentation,
    random: np.random.Generator,
) -> SceneTargets:
    """Paste the next picture, or a crop of it, into a tile (left, top, right, bottom). Returns its persons there."""
    encoded, targets = read()
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    part = _random_part(image.size, augmentation, random)
    width, height = int(tile[2] - tile[0]), int(tile[3] - tile[1])
    patch = image.resize((width, height), Image.Resampling.BILINEAR, box=part)
    targets = crop_targets(targets, part, (width, height))
    if random.random() < augmentation.flip:
        patch = patch.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        boxes = targets.boxes_xyxy
        mirrored = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
        targets = SceneTargets(mirrored, targets.ignore)
    canvas.paste(patch, (int(tile[0]), int(tile[1])))
    return SceneTargets(targets.boxes_xyxy + np.tile(tile[:2], 2), targets.ignore)


def _random_part(size_wh: tuple[int, int], augmentation: SceneAugmentation, random: np.random.Generator) -> Rectangle:
    """The crop of a picture: left, top, right, bottom."""
    if random.random() >= augmentation.crop:
        return 0.0, 0.0, float(size_wh[0]), float(size_wh[1])
    share = random.uniform(augmentation.least_crop, 1.0)
    shares = np.clip(share * np.exp(random.uniform(-0.25, 0.25, 2)), augmentation.least_crop, 1.0)
    width, height = shares * size_wh
    left, top = random.uniform(0, 1, 2) * (np.asarray(size_wh) - [width, height])
    return float(left), float(top), float(left + width), float(top + height)


def crop_targets(targets: SceneTargets, part: Rectangle, size_wh: tuple[int, int]) -> SceneTargets:
    """The persons of a crop (left, top, right, bottom), in pixels of the crop resized to ``size_wh``.

    Boxes are clipped to the crop. A box of which too little is left becomes a region to ignore.
    """
    boxes = targets.boxes_xyxy
    low, high = np.asarray(part[:2]), np.asarray(part[2:])
    cut = np.concatenate([np.clip(boxes[:, :2], low, high), np.clip(boxes[:, 2:], low, high)], axis=1)
    left = _area(cut) / np.maximum(_area(boxes), 1e-9)
    scaled = (cut - np.tile(low, 2)) * np.tile(np.asarray(size_wh) / (high - low), 2)
    small = (scaled[:, 2:] - scaled[:, :2]).min(axis=1) < _LEAST_SIDE if len(scaled) else np.zeros(0, bool)
    ignore = targets.ignore | (left < _LEAST_SHARE) | small
    visible = left > 0
    return SceneTargets(scaled[visible], ignore[visible])


def _area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
