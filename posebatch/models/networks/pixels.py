"""The interface between networks and frames: resized frames, crops, RGB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from posebatch.core.images import GridAlignment
from posebatch.core.tiling import Tile


class Pixels(Protocol):
    """Frames of one size on the device of the networks, rotated as displayed."""

    @property
    def size_wh(self) -> tuple[int, int]:
        """Displayed width and height."""
        ...

    def __len__(self) -> int:
        """Number of frames."""
        ...

    def __getitem__(self, frames: slice) -> Pixels:
        """A slice of the frames; shares their memory."""
        ...

    def cut(self, tile: Tile) -> Pixels:
        """One tile of every frame, as frames of the tile's size; shares their memory."""
        ...

    def resized(self, size_wh: tuple[int, int]) -> torch.Tensor:
        """Resize all frames without keeping the aspect: (n, 3, h, w) float32 RGB, 0..255, antialiased."""
        ...

    def crops(
        self, numbers: Sequence[int], regions: NDArray[np.float64], size_wh: tuple[int, int], alignment: GridAlignment
    ) -> torch.Tensor:
        """Resample regions to one size: (k, 3, h, w) float32 RGB, 0..255; black outside the frame.

        Crop i shows ``regions[i]``, centre x, y, width, height in the frame, of frame ``numbers[i]``.
        """
        ...

    def rgb(self) -> torch.Tensor:
        """All frames: (n, 3, height, width) float32 RGB, 0..255."""
        ...
