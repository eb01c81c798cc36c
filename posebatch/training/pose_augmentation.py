"""Augmentation for pose networks: the crop of a person, and the variation of its pixels."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from posebatch.core.skeleton import FLIP_ORDER, KEYPOINT_NAMES
from posebatch.pose.crops import BOX_PADDING, apply_affine, crop_regions, grid_to_frame, invert_affine
from posebatch.training.pose_examples import PoseTargets

_UPPER_BODY: Final = tuple(
    index for index, name in enumerate(KEYPOINT_NAMES) if index < KEYPOINT_NAMES.index("left_hip")
)


_HALF_BODY_LEAST = 8
"""Known joints from which a crop may show half of the body."""


@dataclass(frozen=True)
class PoseAugmentation:
    """Strength of the augmentation. The defaults are those of SimpleBaseline's code as far as it has them."""

    flip: float = 0.5
    """Probability of mirroring."""
    scale: float = 0.3
    """Largest relative change of the crop's size, up or down."""
    rotation_degrees: float = 40.0
    """Largest rotation to either side, degrees."""
    rotation: float = 0.6
    """Probability of a rotation."""
    shift: float = 0.06
    """Largest shift of the box, as a share of its size: boxes of detectors are not exact."""
    half_body: float = 0.3
    """Probability that the crop shows the upper or the lower half of the body."""
    occlusion: float = 0.3
    """Probability of rectangles of one colour over the crop. Joints under them keep their labels."""
    low_resolution: float = 0.15
    """Probability of a loss of detail, as in distant persons."""
    colour: float = 0.7
    """Probability that brightness, contrast and saturation change."""

    def __post_init__(self) -> None:
        check_shares(self, besides="rotation_degrees")


def check_shares(augmentation: object, besides: str = "") -> None:
    """Raise ``ValueError`` if a field other than ``besides`` is not in 0..1."""
    for name, value in vars(augmentation).items():
        if name != besides and not 0 <= value <= 1:
            raise ValueError(f"{name} must be in 0..1, got {value:g}")


NO_AUGMENTATION: Final = PoseAugmentation(0, 0, 0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True)
class PlacedPerson:
    """The crop of one training example, and its joints in the crop."""

    to_image: NDArray[np.float64]
    """(2, 3) affine map from pixels of the crop to pixels of the image."""
    keypoints: NDArray[np.float64]
    """(17, 2) pixels of the crop."""
    weights: NDArray[np.float64]
    """(17,) weight of each joint in the loss."""
    present: NDArray[np.bool_]
    """(17,) False if the right heatmap is empty."""


@dataclass(frozen=True)
class PoseCrop:
    """One training example for the network."""

    pixels: NDArray[np.uint8]
    """(height, width, 3) RGB."""
    person: PlacedPerson


def place_person(
    targets: PoseTargets, size_wh: tuple[int, int], augmentation: PoseAugmentation, random: np.random.Generator
) -> PlacedPerson:
    """Choose the crop of a person at random within ``augmentation``. Joints outside the crop get weight 0."""
    to_image, mirrored = random_placement(targets, size_wh, augmentation, random)
    points = apply_affine(invert_affine(to_image[None]), targets.keypoints[None])[0]
    weights, present = targets.weights, targets.present
    if mirrored:
        order = list(FLIP_ORDER)
        points, weights, present = points[order], weights[order], present[order]
    inside = ((points > -1) & (points < np.asarray(size_wh))).all(axis=1)
    return PlacedPerson(to_image, points, np.where(present & ~inside, 0.0, weights), present)


def crop_person(
    encoded: bytes,
    targets: PoseTargets,
    size_wh: tuple[int, int],
    augmentation: PoseAugmentation,
    random: np.random.Generator,
) -> PoseCrop:
    """Crop one person from its encoded image, at random within ``augmentation``; black outside the image."""
    person = place_person(targets, size_wh, augmentation, random)
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    inverse = _pillow_affine(person.to_image)
    crop = image.transform(size_wh, Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR)
    return PoseCrop(vary_pixels(crop, augmentation, random), person)


def random_placement(
    targets: PoseTargets, size_wh: tuple[int, int], augmentation: PoseAugmentation, random: np.random.Generator
) -> tuple[NDArray[np.float64], bool]:
    """The affine map (2, 3) from pixels of the crop to pixels of the image, and whether the crop is mirrored."""
    box = targets.bbox_xyxy
    if random.random() < augmentation.half_body:
        box = half_body_box(targets, bool(random.random() < 0.5))
    size = np.tile(box[2:] - box[:2], 2)
    box = box + np.tile(random.uniform(-1, 1, 2), 2) * augmentation.shift * size
    padding = BOX_PADDING * (1 + random.uniform(-1, 1) * augmentation.scale)
    region = crop_regions(box[None], size_wh[0] / size_wh[1], padding)
    to_image = grid_to_frame(region, size_wh)[0]
    rotated = random.random() < augmentation.rotation
    angle = np.deg2rad(random.uniform(-1, 1) * augmentation.rotation_degrees) if rotated else 0.0
    mirrored = bool(random.random() < augmentation.flip)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ to_image[:, :2] @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    middle = (np.asarray(size_wh) - 1) / 2
    return np.concatenate([linear, (region[0, :2] - linear @ middle)[:, None]], axis=1), mirrored


def half_body_box(targets: PoseTargets, upper: bool) -> NDArray[np.float64]:
    """The box (4,) around the known joints of one half of the body; the person's box if too few joints are known."""
    known = targets.present & (targets.weights > 0)
    half = np.isin(np.arange(len(known)), _UPPER_BODY) == upper
    chosen = targets.keypoints[known & half]
    if known.sum() < _HALF_BODY_LEAST or len(chosen) < 3:
        return targets.bbox_xyxy
    low, high = chosen.min(axis=0), chosen.max(axis=0)
    margin = 0.1 * (high - low).max() + 2
    return np.concatenate([low - margin, high + margin])


def vary_pixels(image: Image.Image, augmentation: PoseAugmentation, random: np.random.Generator) -> NDArray[np.uint8]:
    """Vary colour, detail and occlusion of an RGB image at random; returns (height, width, 3)."""
    size = image.size
    if random.random() < augmentation.low_resolution:
        factor = random.uniform(0.2, 0.7)
        small = (max(int(size[0] * factor), 8), max(int(size[1] * factor), 8))
        image = image.resize(small, Image.Resampling.BILINEAR).resize(size, Image.Resampling.BILINEAR)
    pixels = vary_colours(image, augmentation.colour, random)
    if random.random() < augmentation.occlusion:
        for _ in range(random.integers(1, 4)):
            width, height = (random.uniform(0.08, 0.35, 2) * size).astype(int)
            left, top = (random.uniform(0, 1, 2) * (size[0] - width, size[1] - height)).astype(int)
            pixels[top : top + height, left : left + width] = random.integers(0, 256, 3)
    return pixels


def vary_colours(image: Image.Image, probability: float, random: np.random.Generator) -> NDArray[np.uint8]:
    """Vary brightness, contrast and saturation of an RGB image at random; returns (height, width, 3)."""
    if random.random() < probability:
        image = ImageEnhance.Brightness(image).enhance(random.uniform(0.6, 1.4))
        image = ImageEnhance.Contrast(image).enhance(random.uniform(0.6, 1.4))
        image = ImageEnhance.Color(image).enhance(random.uniform(0.3, 1.5))
    return np.array(image)


def _pillow_affine(to_image: NDArray[np.float64]) -> tuple[float, ...]:
    """The six numbers of Pillow's affine map. Its coordinates count from a pixel's edge, ours from its centre."""
    linear, offset = to_image[:, :2], to_image[:, 2]
    edge_offset = offset + 0.5 - linear @ np.array([0.5, 0.5])
    return tuple(np.concatenate([linear, edge_offset[:, None]], axis=1).ravel())
