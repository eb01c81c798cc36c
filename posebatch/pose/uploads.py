"""Uploads of frames to the GPU, while the networks work on earlier ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.dlpack import from_dlpack

from posebatch.core.images import DeviceImages, DevicePlane, FrameBatch, Images, YuvImages
from posebatch.pose.pixels import RgbPixels
from posebatch.pose.yuv_pixels import YuvPixels


def to_device(images: Images, device: str) -> RgbPixels | YuvPixels:
    """A batch's images where the networks are."""
    if isinstance(images, _Sent):
        return images.arrived()
    if isinstance(images, DeviceImages):
        return YuvPixels(images.coding, [_gathered(planes) for planes in zip(*images.frames, strict=True)])
    if isinstance(images, YuvImages):
        planes = [torch.from_numpy(plane).to(device, non_blocking=True) for plane in images.planes]
        return YuvPixels(images.coding, planes)
    assert isinstance(images, np.ndarray)
    return RgbPixels(torch.from_numpy(images).to(device, non_blocking=True))


def pinned_array(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """An array, its content whatever, in memory from which a GPU copies while the processor does something else."""
    kind = {np.uint8: torch.uint8, np.uint16: torch.uint16}[dtype]
    return torch.empty(shape, dtype=kind, pin_memory=True).numpy()


class Uploads:
    """Sends batches to the GPU from the thread that decodes them, while the networks are at work on earlier ones."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def send(self, batch: FrameBatch) -> FrameBatch:
        """The batch, its images under way."""
        return replace(batch, images=self._sent(batch.images))

    def _sent(self, images: Images) -> _Sent:
        # A GPU's decoder works on the default stream: there what it has made is copied before it makes more.
        stream = torch.cuda.default_stream() if isinstance(images, DeviceImages) else self._stream
        with torch.cuda.stream(stream):
            return _Sent(images, to_device(images, "cuda"), stream.record_event())


@dataclass(frozen=True)
class _Sent:
    """Images on their way to the GPU."""

    _images: Images
    _pixels: RgbPixels | YuvPixels
    _sent: torch.cuda.Event

    def __len__(self) -> int:
        return len(self._images)

    @property
    def nbytes(self) -> int:
        """See `Images.nbytes`."""
        return self._images.nbytes

    def arrived(self) -> RgbPixels | YuvPixels:
        """The images on the GPU, once they are there: until then their memory here must not change."""
        self._sent.synchronize()
        self._pixels.used_by(torch.cuda.current_stream())
        return self._pixels


def _gathered(planes: Sequence[DevicePlane]) -> torch.Tensor:
    """A plane of several frames, copied into one tensor, on the GPU where they are."""
    # PyAV takes no stream: its own work is on the default one, where these copies have to be made.
    return torch.stack([from_dlpack(plane.__dlpack__()) for plane in planes])
