"""A layer over an image, drawn larger and then reduced, which smooths the edges of lines and letters."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
"""RGB."""


SUPERSAMPLING: Final = 3
"""Factor by which the layer is larger than the image."""


OUTLINE: Final = (0, 0, 0, 110)
"""RGBA of a thin rim, which keeps lines visible on any background."""


class Overlay:
    """A transparent layer over an RGB image (height, width, 3)::

    overlay = Overlay(image)
    overlay.pen.line([(0, 0), (30, 30)], fill=(255, 0, 0, 255), width=3)
    drawn = overlay.flattened()
    """

    def __init__(self, image: NDArray[np.uint8]) -> None:
        height, width = image.shape[:2]
        self._image = image
        self._layer = Image.new("RGBA", (width * SUPERSAMPLING, height * SUPERSAMPLING))
        self.pen = ImageDraw.Draw(self._layer)
        """Draws on the layer, in its pixels."""

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the layer, its pixels."""
        return self._layer.size

    def flattened(self) -> NDArray[np.uint8]:
        """A new image: the layer above the old one."""
        canvas = Image.fromarray(np.ascontiguousarray(self._image)).convert("RGBA")
        canvas.alpha_composite(self._layer.reduce(SUPERSAMPLING))
        return np.asarray(canvas.convert("RGB"))


def to_layer(points: NDArray[np.floating[Any]], scale: float) -> NDArray[np.floating[Any]]:
    """Pixels of a frame to pixels of the layer over an image of it that is scaled by ``scale``; any shape."""
    return (points + 0.5) * scale * SUPERSAMPLING - 0.5  # an integer is the centre of a pixel
