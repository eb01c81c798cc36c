"""Frames as the planes that came from the decoder: only the pixels that are asked for become RGB.

A detector's picture is made by resizing the planes, each from its own grid, and converting at the small size; a crop
by sampling the planes where its pixels lie. No whole frame is converted or turned for that: of a frame that is
displayed turned, other places are sampled.

Equal to converting first, as `posebatch.pose.pixels.RgbPixels` does, up to rounding: RGB is a linear function of the
planes, so sampling and converting may change places. Values outside 0..255 are clipped once, at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from numpy.typing import NDArray

from posebatch.core.images import GridAlignment, PixelCoding
from posebatch.core.tiling import Tile
from posebatch.pose.crops import grid_to_frame


class YuvPixels:
    """Frames of one coding on one device, their planes stacked: shapes (n, *shape) for ``coding.plane_shapes``."""

    def __init__(self, coding: PixelCoding, planes: Sequence[torch.Tensor]) -> None:
        self._coding, self._planes = coding, tuple(planes)

    @property
    def size_wh(self) -> tuple[int, int]:
        """See `Pixels.size_wh`."""
        return self._coding.displayed_wh

    def __len__(self) -> int:
        return len(self._planes[0])

    def __getitem__(self, frames: slice) -> YuvPixels:
        """See `Pixels.__getitem__`."""
        return YuvPixels(self._coding, [plane[frames] for plane in self._planes])

    def cut(self, tile: Tile) -> YuvPixels:
        """See `Pixels.cut`. The tile must begin at a sample of the colours, counted from the planes' own corner."""
        placed = _tile_before_turning(tile, self._coding)
        coding = replace(self._coding, size_wh=placed.size_wh)
        steps = [(1, 1), *[self._coding.chroma_step_xy or (1, 1)] * (len(self._planes) - 1)]
        if any(placed.left % x or placed.top % y for x, y in steps):
            raise ValueError(f"{tile} does not begin at a sample of the colours of {self._coding}")
        planes = []
        for plane, (step_x, step_y), shape in zip(self._planes, steps, coding.plane_shapes, strict=True):
            left, top = placed.left // step_x, placed.top // step_y
            planes.append(plane[:, top : top + shape[0], left : left + shape[1]])
        return YuvPixels(coding, planes)

    def used_by(self, stream: torch.cuda.Stream) -> None:
        """Keep the memory from others until the stream has done what it has been told by then."""
        for plane in self._planes:
            plane.record_stream(stream)

    def resized(self, size_wh: tuple[int, int]) -> torch.Tensor:
        """See `Pixels.resized`."""
        turns, chroma = self._coding.quarter_turns, self._chroma()
        height, width = size_wh if turns % 2 else size_wh[::-1]
        chroma_width, chroma_height = self._coding.chroma_wh
        if chroma_width < 2 * width or chroma_height < 2 * height:  # too coarse to be resized from its own grid
            chroma = [self._spread(plane) for plane in chroma]
        planes = (plane[:, None].float() for plane in (self._planes[0], *chroma))
        small = [F.interpolate(plane, (height, width), mode="bilinear", antialias=True)[:, 0] for plane in planes]
        return torch.rot90(self._to_rgb(small), turns, (2, 3))

    def crops(
        self, numbers: Sequence[int], regions: NDArray[np.float64], size_wh: tuple[int, int], alignment: GridAlignment
    ) -> torch.Tensor:
        """See `Pixels.crops`. All of them at once, whichever frames they are of."""
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

    def rgb(self) -> torch.Tensor:
        """See `Pixels.rgb`."""
        planes = [self._planes[0].float(), *(self._spread(plane) for plane in self._chroma())]
        return torch.rot90(self._to_rgb(planes), self._coding.quarter_turns, (2, 3))

    def _chroma(self) -> list[torch.Tensor]:
        """The colour planes, (n, h, w) each; none where there is no colour."""
        if self._coding.interleaved:
            return list(self._planes[1].unbind(dim=3))
        return list(self._planes[1:])

    def _spread(self, plane: torch.Tensor) -> torch.Tensor:
        """A colour plane at the size of the brightness: (n, height, width) float32."""
        for axis in (0, 1):
            table = _upsampling(self._coding, axis, plane.device)
            taps = [plane.index_select(2 - axis, index).float() for index in table.index[0].unbind(dim=1)]
            weights = [weight if axis == 0 else weight[:, None] for weight in table.weight[0].unbind(dim=1)]
            plane = torch.stack([tap * weight for tap, weight in zip(taps, weights, strict=True)]).sum(dim=0)
        return plane

    def _to_rgb(self, planes: Sequence[torch.Tensor], inside: torch.Tensor | float = 1.0) -> torch.Tensor:
        """Brightness and colours at one size, (n, h, w) float32 each -> (n, 3, h, w).

        ``inside`` is how much of a pixel lies in its frame: what lies outside is 0 in the planes, and black in RGB.
        """
        matrix, offset = self._coding.rgb_matrix()
        channels = [
            sum((plane * factor for plane, factor in zip(planes, factors, strict=True) if factor), constant * inside)
            for factors, constant in zip(matrix.tolist(), offset.tolist(), strict=True)
        ]
        return torch.stack(channels, dim=1).clamp_(0, 255)


@dataclass(frozen=True)
class _Taps:
    """Which samples along one axis make up each pixel of a crop, (k, pixels, taps)."""

    index: torch.Tensor
    weight: torch.Tensor
    """float32. Sums to 1 inside the frame; samples outside have none."""

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
        """The same where each sample is itself made of others, as ``table`` (1, samples, taps) has it."""
        index, weight = table.index[0][self.index], table.weight[0][self.index] * self.weight[..., None]
        return _Taps(index.flatten(2), weight.flatten(2))


@lru_cache(maxsize=64)
def _upsampling(coding: PixelCoding, axis: int, device: torch.device) -> _Taps:
    """Which samples of a colour plane make up each row (axis 1) or column (axis 0) of the frame: (1, length, taps)."""
    assert coding.chroma_step_xy is not None
    length, chroma_length = coding.size_wh[axis], coding.chroma_wh[axis]
    if coding.repeats_xy[axis]:
        index = torch.arange(length, device=device)[None, :, None] // coding.chroma_step_xy[axis]
        return _Taps(index, torch.ones_like(index, dtype=torch.float32))
    positions = (np.arange(length) + 0.5) * chroma_length / length - 0.5
    return _Taps.at(positions.clip(0, chroma_length - 1)[None], chroma_length, device)


def _tile_before_turning(tile: Tile, coding: PixelCoding) -> Tile:
    """A part of the displayed frame -> the part of the planes that is shown there."""
    x, y = np.array([tile.left, tile.left + tile.width - 1]), np.array([tile.top, tile.top + tile.height - 1])
    columns, rows = _before_turning(x.astype(np.float64), y.astype(np.float64), coding)
    left, top = int(columns.min()), int(rows.min())
    return Tile(left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1)


def _before_turning(
    x: NDArray[np.float64], y: NDArray[np.float64], coding: PixelCoding
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Displayed columns and rows -> the columns and rows of the planes that are shown there.

    After a quarter turn a displayed column is a row of the planes: the two have changed places.
    """
    width, height = coding.size_wh
    return [(x, y), (width - 1 - y, x), (width - 1 - x, height - 1 - y), (y, height - 1 - x)][coding.quarter_turns]


def _sampled(plane: torch.Tensor, of_frame: torch.Tensor, over_x: _Taps, over_y: _Taps) -> torch.Tensor:
    """A plane (n, h, w) of frames (k, 1, 1) at every pair of a row and a column: (k, rows, columns) float32."""
    columns = list(zip(over_x.index.unbind(dim=2), over_x.weight.unbind(dim=2), strict=True))
    rows = list(zip(over_y.index.unbind(dim=2), over_y.weight.unbind(dim=2), strict=True))
    total = torch.zeros((), device=plane.device)
    for row, row_weight in rows:
        for column, weight in columns:
            values = plane[of_frame, row[:, :, None], column[:, None, :]]
            total = total + values * (row_weight[:, :, None] * weight[:, None, :])
    return total
