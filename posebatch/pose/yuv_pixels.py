"""YUV frames on the networks' device: only requested pixels are converted to RGB.

For a detector the planes are resized, each from its own grid, and converted at the small size. For a crop the planes
are sampled at the positions of its pixels. No whole frame is converted or rotated: for a rotated frame the sampling
positions are rotated instead.

The result is that of `posebatch.pose.pixels.RgbPixels` on converted frames, up to rounding. RGB is a linear function of
the planes, so the order of sampling and conversion does not matter. Values are clipped to 0..255 once, at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from numpy.typing import NDArray
from typing_extensions import override

from posebatch.core.images import GridAlignment, PixelCoding
from posebatch.core.tiling import Tile
from posebatch.models.networks.pixels import Pixels
from posebatch.pose.crops import grid_to_frame


class YuvPixels(Pixels):
    """Frames of one pixel coding; each plane is a tensor (n, *shape) for the shapes of ``coding.plane_shapes``."""

    def __init__(self, coding: PixelCoding, planes: Sequence[torch.Tensor]) -> None:
        self._coding, self._planes = coding, tuple(planes)

    @property
    @override
    def size_wh(self) -> tuple[int, int]:
        return self._coding.displayed_wh

    @override
    def __len__(self) -> int:
        return len(self._planes[0])

    @override
    def __getitem__(self, frames: slice) -> YuvPixels:
        return YuvPixels(self._coding, [plane[frames] for plane in self._planes])

    @override
    def cut(self, tile: Tile) -> YuvPixels:
        """Raises ``ValueError`` unless the tile begins at a chroma sample, counted from the corner of the planes."""
        placed = _tile_before_turning(tile, self._coding)
        coding = replace(self._coding, size_wh=placed.size_wh)
        steps = [(1, 1), *[self._coding.chroma_step_xy or (1, 1)] * (len(self._planes) - 1)]
        if any(placed.left % x or placed.top % y for x, y in steps):
            raise ValueError(f"{tile} does not begin at a chroma sample of {self._coding}")
        planes = []
        for plane, (step_x, step_y), shape in zip(self._planes, steps, coding.plane_shapes, strict=True):
            left, top = placed.left // step_x, placed.top // step_y
            planes.append(plane[:, top : top + shape[0], left : left + shape[1]])
        return YuvPixels(coding, planes)

    def keep_until_done(self, stream: torch.cuda.Stream) -> None:
        """Do not reuse this memory before the work queued so far on ``stream`` is finished (`Tensor.record_stream`)."""
        for plane in self._planes:
            plane.record_stream(stream)

    @override
    def resized(self, size_wh: tuple[int, int]) -> torch.Tensor:
        turns, chroma = self._coding.quarter_turns, self._chroma()
        height, width = size_wh if turns % 2 else size_wh[::-1]
        chroma_width, chroma_height = self._coding.chroma_wh
        if chroma_width < 2 * width or chroma_height < 2 * height:  # too coarse to be resized from its own grid
            chroma = [self._upsampled(plane) for plane in chroma]
        planes = (plane[:, None].float() for plane in (self._planes[0], *chroma))
        small = [F.interpolate(plane, (height, width), mode="bilinear", antialias=True)[:, 0] for plane in planes]
        return torch.rot90(self._to_rgb(small), turns, (2, 3))

    @override
    def crops(
        self, numbers: Sequence[int], regions: NDArray[np.float64], size_wh: tuple[int, int], alignment: GridAlignment
    ) -> torch.Tensor:
        device, (width, height) = self._planes[0].device, self._coding.size_wh
        affine = grid_to_frame(regions.reshape(-1, 4), size_wh, alignment)
        x = affine[:, 0, 2:] + affine[:, 0, :1] * np.arange(size_wh[0])
        y = affine[:, 1, 2:] + affine[:, 1, 1:2] * np.arange(size_wh[1])
        columns, rows = _before_turning(x, y, self._coding)
        of_frame = torch.from_numpy(np.asarray(numbers, np.int64)).to(device)[:, None, None]
        over_x, over_y = _Taps.at(columns, width, device), _Taps.at(rows, height, device)
        crops = [_sampled(self._planes[0], of_frame, over_x, over_y)]
        if chroma := self._chroma():
            chroma_x, chroma_y = (
                taps.through(_upsampling(self._coding, axis, device)) for axis, taps in enumerate((over_x, over_y))
            )
            crops += [_sampled(plane, of_frame, chroma_x, chroma_y) for plane in chroma]
        inside = over_y.weight.sum(dim=2)[:, :, None] * over_x.weight.sum(dim=2)[:, None, :]
        rgb = self._to_rgb(crops, inside)
        return rgb.transpose(2, 3) if self._coding.quarter_turns % 2 else rgb

    @override
    def rgb(self) -> torch.Tensor:
        planes = [self._planes[0].float(), *(self._upsampled(plane) for plane in self._chroma())]
        return torch.rot90(self._to_rgb(planes), self._coding.quarter_turns, (2, 3))

    def _chroma(self) -> list[torch.Tensor]:
        """The two chroma planes, (n, h, w) each; an empty list for greyscale frames."""
        if self._coding.interleaved:
            return list(self._planes[1].unbind(dim=3))
        return list(self._planes[1:])

    def _upsampled(self, plane: torch.Tensor) -> torch.Tensor:
        """A chroma plane at the size of the luma plane: (n, h, w) -> (n, height, width) float32."""
        for axis in (0, 1):
            table = _upsampling(self._coding, axis, plane.device)
            taps = [plane.index_select(2 - axis, index).float() for index in table.index[0].unbind(dim=1)]
            weights = [weight if axis == 0 else weight[:, None] for weight in table.weight[0].unbind(dim=1)]
            plane = torch.stack([tap * weight for tap, weight in zip(taps, weights, strict=True)]).sum(dim=0)
        return plane

    def _to_rgb(self, planes: Sequence[torch.Tensor], inside: torch.Tensor | float = 1.0) -> torch.Tensor:
        """Convert luma and chroma of one size, (n, h, w) float32 each -> (n, 3, h, w).

        ``inside`` is the share of each pixel that lies in its frame. Outside, the planes are 0 and RGB is black.
        """
        matrix, offset = self._coding.rgb_matrix()
        channels = [
            sum((plane * factor for plane, factor in zip(planes, factors, strict=True) if factor), constant * inside)
            for factors, constant in zip(matrix.tolist(), offset.tolist(), strict=True)
        ]
        return torch.stack(channels, dim=1).clamp_(0, 255)


@dataclass(frozen=True)
class _Taps:
    """The samples along one axis that make up each pixel of a crop, and their weights: (k, pixels, taps) each."""

    index: torch.Tensor
    weight: torch.Tensor
    """float32. The weights of a pixel inside the frame sum to 1; samples outside the frame have weight 0."""

    @classmethod
    def at(cls, positions: NDArray[np.float64], length: int, device: torch.device) -> _Taps:
        """Linear interpolation at positions (k, pixels) among ``length`` samples at 0, 1, 2..."""
        where = torch.from_numpy(positions).to(device)
        first = where.floor()
        share = (where - first)[:, :, None]
        index = torch.stack([first, first + 1], dim=2)
        weight = torch.cat([1 - share, share], dim=2) * ((index >= 0) & (index < length))
        return cls(index.clamp(0, length - 1).long(), weight.float())

    def through(self, table: _Taps) -> _Taps:
        """Compose with ``table`` (1, samples, taps), in which each sample is itself a weighted sum of others."""
        index, weight = table.index[0][self.index], table.weight[0][self.index] * self.weight[..., None]
        return _Taps(index.flatten(2), weight.flatten(2))


@lru_cache(maxsize=64)
def _upsampling(coding: PixelCoding, axis: int, device: torch.device) -> _Taps:
    """The samples of a chroma plane that make up each column (axis 0) or row (axis 1) of a frame: (1, length, taps)."""
    assert coding.chroma_step_xy is not None
    length, chroma_length = coding.size_wh[axis], coding.chroma_wh[axis]
    if coding.repeats_xy[axis]:
        index = torch.arange(length, device=device)[None, :, None] // coding.chroma_step_xy[axis]
        return _Taps(index, torch.ones_like(index, dtype=torch.float32))
    positions = (np.arange(length) + 0.5) * chroma_length / length - 0.5
    return _Taps.at(positions.clip(0, chroma_length - 1)[None], chroma_length, device)


def _tile_before_turning(tile: Tile, coding: PixelCoding) -> Tile:
    """Map a tile of the displayed frame to the planes, before the rotation."""
    x, y = np.array([tile.left, tile.left + tile.width - 1]), np.array([tile.top, tile.top + tile.height - 1])
    columns, rows = _before_turning(x.astype(np.float64), y.astype(np.float64), coding)
    left, top = int(columns.min()), int(rows.min())
    return Tile(left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1)


def _before_turning(
    x: NDArray[np.float64], y: NDArray[np.float64], coding: PixelCoding
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Map columns and rows of the displayed frame to those of the planes, before the rotation.

    After a quarter turn a column of the display is a row of the planes.
    """
    width, height = coding.size_wh
    return [(x, y), (width - 1 - y, x), (width - 1 - x, height - 1 - y), (y, height - 1 - x)][coding.quarter_turns]


def _sampled(plane: torch.Tensor, of_frame: torch.Tensor, over_x: _Taps, over_y: _Taps) -> torch.Tensor:
    """Sample a plane (n, h, w) at all pairs of rows and columns of k crops: (k, rows, columns) float32.

    ``of_frame`` (k, 1, 1) is the frame of each crop.
    """
    columns = list(zip(over_x.index.unbind(dim=2), over_x.weight.unbind(dim=2), strict=True))
    rows = list(zip(over_y.index.unbind(dim=2), over_y.weight.unbind(dim=2), strict=True))
    total = torch.zeros((), device=plane.device)
    for row, row_weight in rows:
        for column, weight in columns:
            values = plane[of_frame, row[:, :, None], column[:, None, :]]
            total = total + values * (row_weight[:, :, None] * weight[:, None, :])
    return total
