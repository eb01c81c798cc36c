"""RGB frames on the networks' device, resized and cropped on request.

A detector needs whole frames at a small size. A pose network needs one resampled rectangle for each person. Only these
pixels are converted to float; no whole frame is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from numpy.typing import NDArray
from typing_extensions import override

from posebatch.core.images import GridAlignment
from posebatch.core.tiling import Tile
from posebatch.models.networks.pixels import Pixels
from posebatch.pose.crops import grid_to_frame


class RgbPixels(Pixels):
    """RGB frames (n, height, width, 3) uint8."""

    def __init__(self, images: torch.Tensor) -> None:
        self._images = images

    @property
    @override
    def size_wh(self) -> tuple[int, int]:
        return self._images.shape[2], self._images.shape[1]

    @override
    def __len__(self) -> int:
        return len(self._images)

    @override
    def __getitem__(self, frames: slice) -> RgbPixels:
        return RgbPixels(self._images[frames])

    @override
    def cut(self, tile: Tile) -> RgbPixels:
        return RgbPixels(self._images[:, tile.top : tile.top + tile.height, tile.left : tile.left + tile.width])

    def keep_until_done(self, stream: torch.cuda.Stream) -> None:
        """Do not reuse this memory before the work queued so far on ``stream`` is finished (`Tensor.record_stream`)."""
        self._images.record_stream(stream)

    @override
    def resized(self, size_wh: tuple[int, int]) -> torch.Tensor:
        frames = self._images.permute(0, 3, 1, 2)
        if frames.device.type != "cpu":
            frames = frames.float()  # only the CPU resizes uint8 with antialiasing
        # A 1080p frame on one Zen 3 thread takes 1.2 to 1.9 ms as uint8, and 18 ms as float32 without antialiasing.
        return F.interpolate(frames, size=size_wh[::-1], mode="bilinear", antialias=True).float()

    @override
    def crops(
        self, numbers: Sequence[int], regions: NDArray[np.float64], size_wh: tuple[int, int], alignment: GridAlignment
    ) -> torch.Tensor:
        pairs = zip(numbers, regions, strict=True)
        return torch.stack([sample_crop(self._images[number], region, size_wh, alignment) for number, region in pairs])

    @override
    def rgb(self) -> torch.Tensor:
        return self._images.permute(0, 3, 1, 2).float()


class JoinedPixels(Pixels):
    """Frames of one size from several batches, in the order of the batches."""

    def __init__(self, parts: Sequence[Pixels]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    @property
    @override
    def size_wh(self) -> tuple[int, int]:
        return self._parts[0].size_wh

    @override
    def __len__(self) -> int:
        return int(self._starts[-1])

    @override
    def __getitem__(self, frames: slice) -> JoinedPixels:
        first, end, _ = frames.indices(len(self))
        starts = zip(self._parts, self._starts[:-1], strict=True)
        return JoinedPixels([part[max(0, first - start) : max(0, end - start)] for part, start in starts])

    @override
    def cut(self, tile: Tile) -> JoinedPixels:
        return JoinedPixels([part.cut(tile) for part in self._parts])

    @override
    def resized(self, size_wh: tuple[int, int]) -> torch.Tensor:
        return torch.cat([part.resized(size_wh) for part in self._parts])

    @override
    def crops(
        self, numbers: Sequence[int], regions: NDArray[np.float64], size_wh: tuple[int, int], alignment: GridAlignment
    ) -> torch.Tensor:
        crops, first = [], 0
        owners = (np.searchsorted(self._starts, numbers, side="right") - 1).tolist()
        for owner, run in groupby(owners):  # one call for each run of crops from one batch
            end = first + len(list(run))
            own_numbers = [number - self._starts[owner] for number in numbers[first:end]]
            crops.append(self._parts[owner].crops(own_numbers, regions[first:end], size_wh, alignment))
            first = end
        return torch.cat(crops)

    @override
    def rgb(self) -> torch.Tensor:
        return torch.cat([part.rgb() for part in self._parts])


def sample_crop(
    image: torch.Tensor, region: NDArray[np.float64], size_wh: tuple[int, int], alignment: GridAlignment = "edges"
) -> torch.Tensor:
    """Resample a region of a frame to the network's input: (H, W, 3) uint8 -> (3, h, w) float32, 0..255.

    Interpolation is bilinear, and pixels outside the frame are black, as with ``cv2.warpAffine`` in SimpleBaseline's
    code. Only the pixels of the region are converted.
    """
    height, width = image.shape[:2]
    affine = grid_to_frame(region[None], size_wh, alignment)[0]
    x = affine[0, 2] + affine[0, 0] * np.arange(size_wh[0])
    y = affine[1, 2] + affine[1, 1] * np.arange(size_wh[1])
    left, right = _span(x, width)
    top, bottom = _span(y, height)
    patch = image[top:bottom, left:right].permute(2, 0, 1)[None].float()
    grid_x = torch.from_numpy(_normalised(x - left, right - left)).to(image.device)
    grid_y = torch.from_numpy(_normalised(y - top, bottom - top)).to(image.device)
    grid = torch.stack(torch.meshgrid(grid_x, grid_y, indexing="xy"), dim=-1)[None]
    return F.grid_sample(patch, grid, mode="bilinear", padding_mode="zeros", align_corners=True)[0]


def _span(positions: NDArray[np.float64], length: int) -> tuple[int, int]:
    """The half-open range of pixels that bilinear sampling at ``positions`` reads, within 0..length.

    The range has at least two pixels if the frame has: ``grid_sample`` cannot express a position next to a single one.
    """
    first = min(max(int(np.floor(positions[0])), 0), max(0, length - 2))
    last = min(max(int(np.floor(positions[-1])) + 1, first + 1), length - 1)
    return first, last + 1


def _normalised(positions: NDArray[np.float64], length: int) -> NDArray[np.float32]:
    """Pixel positions as coordinates of ``grid_sample`` with align_corners: -1 at the first pixel, 1 at the last."""
    if length == 1:  # the frame is one pixel wide or high, and that pixel counts at every position
        return np.zeros(len(positions), np.float32)
    return (2 * positions / (length - 1) - 1).astype(np.float32)
