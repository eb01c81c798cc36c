"""The interface through which networks ask frames for pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from posebatch.core.images import GridAlignment
from posebatch.core.tiling import Tile


class Pixels(Protocol):
    """Frames of one size, as they are displayed."""

    @property
    def size_wh(self) -> tuple[int, int]:
        """Displayed width and height."""
        ...

    def __len__(self) -> int:
        """Number of frames."""
        ...

    def __getitem__(self, frames: slice) -> Pixels:
        """A few of the frames, in the same memory."""
        ...

    def cut(self, tile: Tile) -> Pixels:
        """The same part of every frame, in the same memory, as frames of the part's size."""
        ...

    def resized(self, size_wh: tuple[int, int]) -> torch.Tensor:
        """Every whole frame at another size, the aspect not kept: (n, 3, h, w) float32 RGB, 0..255, antialiased."""
        ...

    def crops(
        self, numbers: Sequence[int], regions: NDArray[np.float64], size_wh: tuple[int, int], alignment: GridAlignment
    ) -> torch.Tensor:
        """Rectangles resampled to one size: (k, 3, h, w) float32 RGB, 0..255; black outside the frame.

        The i-th is ``regions[i]``, (centre x, y, width, height) in the frame, of frame ``numbers[i]``.
        """
        ...

    def rgb(self) -> torch.Tensor:
        """Every whole frame: (n, 3, height, width) float32 RGB, 0..255."""
        ...
