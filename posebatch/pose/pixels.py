"""Frames on the networks' device, in the form in which they came from the decoder: gives the pixels that are asked for.

A detector wants whole frames at its own small size, a pose network one resampled rectangle for each person. So nothing
needs a whole frame as float RGB, and only what is asked for is converted.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from numpy.typing import NDArray

from posebatch.core.images import GridAlignment
from posebatch.core.tiling import Tile
from posebatch.models.networks.pixels import Pixels
from posebatch.pose.crops import grid_to_frame


class RgbPixels:
    """Frames that are RGB already: (n, height, width, 3) uint8."""

    def __init__(self, images: torch.Tensor) -> None:
        self._images = images

    @property
    def size_wh(self) -> tuple[int, int]:
        """See `Pixels.size_wh`."""
        return self._images.shape[2], self._images.shape[1]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, frames: slice) -> RgbPixels:
        """See `Pixels.__getitem__`."""
        return RgbPixels(self._images[frames])

    def cut(self, tile: Tile) -> RgbPixels:
        """See `Pixels.cut`."""
        return RgbPixels(self._images[:, tile.top : tile.top + tile.height, tile.left : tile.left + tile.width])

    def used_by(self, stream: torch.cuda.Stream) -> None:
        """Keep the memory from others until the stream has done what it has been told by then."""
        self._images.record_stream(stream)

    def resized(self, size_wh: tuple[int, int]) -> torch.Tensor:
        """See `Pixels.resized`."""
        frames = self._images.permute(0, 3, 1, 2)
        if frames.device.type != "cpu":
            frames = frames.float()  # only the CPU's antialiased resize takes uint8
        # On uint8 it takes 1.2 to 1.9 ms for a 1080p frame on one Zen 3 thread; without antialiasing, on float32, 18.
        return F.interpolate(frames, size=size_wh[::-1], mode="bilinear", antialias=True).float()

    def crops(
        self, numbers: Sequence[int], regions: NDArray[np.float64], size_wh: tuple[int, int], alignment: GridAlignment
    ) -> torch.Tensor:
        """See `Pixels.crops`."""
        pairs = zip(numbers, regions, strict=True)
        return torch.stack([sample_crop(self._images[number], region, size_wh, alignment) for number, region in pairs])

    def rgb(self) -> torch.Tensor:
        """See `Pixels.rgb`."""
        return self._images.permute(0, 3, 1, 2).float()


class JoinedPixels:
    """Frames of one size from several batches, one batch's after the other's."""

    def __init__(self, parts: Sequence[Pixels]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    @property
    def size_wh(self) -> tuple[int, int]:
        """See `Pixels.size_wh`."""
        return self._parts[0].size_wh

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, frames: slice) -> JoinedPixels:
        """See `Pixels.__getitem__`."""
        first, end, _ = frames.indices(len(self))
        starts = zip(self._parts, self._starts[:-1], strict=True)
        return JoinedPixels([part[max(0, first - start) : max(0, end - start)] for part, start in starts])

    def cut(self, tile: Tile) -> JoinedPixels:
        """See `Pixels.cut`."""
        return JoinedPixels([part.cut(tile) for part in self._parts])

    def resized(self, size_wh: tuple[int, int]) -> torch.Tensor:
        """See `Pixels.resized`."""
        return torch.cat([part.resized(size_wh) for part in self._parts])

    def crops(
        self, numbers: Sequence[int], regions: NDArray[np.float64], size_wh: tuple[int, int], alignment: GridAlignment
    ) -> torch.Tensor:
        """See `Pixels.crops`."""
        owners = np.searchsorted(self._starts, numbers, side="right") - 1
        runs = [(owner, list(run)) for owner, run in groupby(range(len(numbers)), owners.__getitem__)]
        return torch.cat(
            [
                self._parts[owner].crops(
                    [numbers[k] - self._starts[owner] for k in run], regions[run], size_wh, alignment
                )
                for owner, run in runs
            ]
        )

    def rgb(self) -> torch.Tensor:
        """See `Pixels.rgb`."""
        return torch.cat([part.rgb() for part in self._parts])


def sample_crop(
    image: torch.Tensor, region: NDArray[np.float64], size_wh: tuple[int, int], alignment: GridAlignment = "edges"
) -> torch.Tensor:
    """Resample a region of a frame to the network's input: (H, W, 3) uint8 -> (3, h, w) float32, 0..255.

    Bilinear; black outside the frame, as ``cv2.warpAffine`` gives it in SimpleBaseline's code. Only the pixels of the
    region are converted.
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

    At least two, where there are two: in one alone, all positions would be its own.
    """
    first = min(max(int(np.floor(positions[0])), 0), max(0, length - 2))
    last = min(max(int(np.floor(positions[-1])) + 1, first + 1), length - 1)
    return first, last + 1


def _normalised(positions: NDArray[np.float64], length: int) -> NDArray[np.float32]:
    """Pixel positions as ``grid_sample`` wants them with align_corners: -1 and 1 at the first and last pixel."""
    if length == 1:  # a frame one pixel wide or high: it is everywhere
        return np.zeros(len(positions), np.float32)
    return (2 * positions / (length - 1) - 1).astype(np.float32)
