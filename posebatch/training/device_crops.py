"""Person crops and their augmentation on the network's device, because crops made on the CPU would stall a GPU.

All pictures are decoded once and kept on the device: 10,000 persons of 352 x 352 pixels take 3.7 GB.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it
from numpy.typing import NDArray
from PIL import Image

from posebatch.training.pose_augmentation import PlacedPerson, PoseAugmentation
from posebatch.training.pose_examples import PoseExamples

_LUMINANCE = (0.299, 0.587, 0.114)


_MOST_RECTANGLES = 3


class DevicePictures:
    """The pictures of all examples on one device."""

    def __init__(self, examples: PoseExamples, device: str | torch.device) -> None:
        with ThreadPoolExecutor() as pool:
            decoded = list(pool.map(lambda index: _decoded(examples.read_image(index)), range(len(examples))))
        height, width = (max(picture.shape[axis] for picture in decoded) for axis in (0, 1))
        self._pictures = torch.zeros(len(decoded), 3, height, width, dtype=torch.uint8, device=device)
        for index, picture in enumerate(decoded):
            self._pictures[index, :, : picture.shape[0], : picture.shape[1]] = torch.from_numpy(picture).permute(
                2, 0, 1
            )

    def crops(self, indices: Sequence[int], persons: Sequence[PlacedPerson], size_wh: tuple[int, int]) -> torch.Tensor:
        """Crop each person: (n, 3, h, w) float32 RGB, 0..255, bilinear, black outside the picture."""
        pictures = self._pictures[torch.tensor(indices, device=self._pictures.device)].float()
        height, width = pictures.shape[2:]
        columns, rows = np.meshgrid(np.arange(size_wh[0]), np.arange(size_wh[1]))
        points = np.stack([columns, rows, np.ones_like(columns)], axis=-1).astype(np.float64)  # (h, w, 3)
        places = np.stack([points @ person.to_image.T for person in persons])  # (n, h, w, 2) pixels of the picture
        grid = (2 * places + 1) / np.array([width, height]) - 1
        return F.grid_sample(pictures, torch.from_numpy(grid).to(pictures), align_corners=False)


def _decoded(encoded: bytes) -> NDArray[np.uint8]:
    return np.array(Image.open(io.BytesIO(encoded)).convert("RGB"))


def vary_crops(
    crops: torch.Tensor, augmentation: PoseAugmentation, randoms: Sequence[np.random.Generator]
) -> torch.Tensor:
    """Vary colour, detail and occlusion at random, like `posebatch.training.pose_augmentation.vary_pixels`.

    ``crops``: (n, 3, h, w) float32, 0..255, on any device. ``randoms``: one generator per crop. All crops of a batch
    that lose detail lose it by the same factor.
    """
    blurred = [random.random() < augmentation.low_resolution for random in randoms]
    if any(blurred):
        chosen = torch.tensor(blurred, device=crops.device)
        factor = randoms[blurred.index(True)].uniform(0.2, 0.7)
        crops = torch.where(chosen[:, None, None, None], _less_detail(crops, factor), crops)
    crops = _vary_colours(crops, augmentation.colour, randoms)
    return _occlude(crops, augmentation.occlusion, randoms)


def _less_detail(crops: torch.Tensor, factor: float) -> torch.Tensor:
    size = crops.shape[2:]
    small = [max(int(side * factor), 8) for side in size]
    return F.interpolate(F.interpolate(crops, small, mode="bilinear", antialias=True), size, mode="bilinear")


def _vary_colours(crops: torch.Tensor, probability: float, randoms: Sequence[np.random.Generator]) -> torch.Tensor:
    """Change brightness, contrast and saturation like Pillow's ``ImageEnhance``."""
    unchanged = (1.0, 1.0, 1.0)
    factors = [
        (random.uniform(0.6, 1.4), random.uniform(0.6, 1.4), random.uniform(0.3, 1.5))
        if random.random() < probability
        else unchanged
        for random in randoms
    ]
    brightness, contrast, saturation = torch.tensor(factors).to(crops).T[:, :, None, None, None]
    luminance = crops.new_tensor(_LUMINANCE).view(1, 3, 1, 1)
    crops = (crops * brightness).clamp(0, 255)
    grey = (crops * luminance).sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True)
    crops = (grey + (crops - grey) * contrast).clamp(0, 255)
    grey = (crops * luminance).sum(dim=1, keepdim=True)
    return (grey + (crops - grey) * saturation).clamp(0, 255)


def _occlude(crops: torch.Tensor, probability: float, randoms: Sequence[np.random.Generator]) -> torch.Tensor:
    """Draw rectangles of one colour over some crops."""
    height, width = crops.shape[2:]
    y, x = torch.arange(height, device=crops.device)[None, :, None], torch.arange(width, device=crops.device)
    counts = [random.integers(1, _MOST_RECTANGLES + 1) if random.random() < probability else 0 for random in randoms]
    for number in range(max(counts, default=0)):
        rows = [_rectangle(random, (width, height)) if number < count else (0,) * 7
                for random, count in zip(randoms, counts, strict=True)]  # fmt: skip
        left, top, right, bottom = torch.tensor([row[:4] for row in rows], device=crops.device).T[:, :, None, None]
        colour = crops.new_tensor([row[4:] for row in rows])[:, :, None, None]
        covered = (x >= left) & (x < right) & (y >= top) & (y < bottom)  # (n, h, w)
        crops = torch.where(covered[:, None], colour, crops)
    return crops


def _rectangle(random: np.random.Generator, size_wh: tuple[int, int]) -> tuple[int, ...]:
    """Left, top, right, bottom, and red, green, blue."""
    width, height = (random.uniform(0.08, 0.35, 2) * size_wh).astype(int).tolist()
    left, top = (random.uniform(0, 1, 2) * (size_wh[0] - width, size_wh[1] - height)).astype(int).tolist()
    return left, top, left + width, top + height, *random.integers(0, 256, 3).tolist()
