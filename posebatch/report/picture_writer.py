"""What the writers of previews have in common: each takes the frames of a clip in order, and writes one file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class AnnotatedFrame:
    """A frame of a preview and the time at which it is shown."""

    time_s: float
    image: NDArray[np.uint8]
    """(height, width, 3) RGB."""


class PictureWriter(ABC):
    """Writes one kind of preview. Every method may raise `PreviewError`::

    with WebpWriter() as writer:
        for number, time_s in enumerate(times):
            if writer.wants(number, time_s):
                writer.add(AnnotatedFrame(time_s, draw(number)))
        count = writer.finish(file)
    """

    @property
    def is_full(self) -> bool:
        """Whether it takes no further frame."""
        return False

    @abstractmethod
    def wants(self, number: int, time_s: float) -> bool:
        """Whether it shows this frame of the clip, counted from 0. Only these need to be drawn."""

    @abstractmethod
    def add(self, frame: AnnotatedFrame) -> None:
        """Take a frame that it wants."""

    @abstractmethod
    def finish(self, file: IO[bytes]) -> int:
        """Write the whole file; returns its number of pictures. Raises `PreviewError` if there is no frame."""

    @abstractmethod
    def close(self) -> None:
        """Give up what it holds. May be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def fitted(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The image in this size. Frames may change their size within a video."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height)))
