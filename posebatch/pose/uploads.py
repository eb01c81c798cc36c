"""Uploads of frames to the GPU, while the networks work on earlier ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.dlpack import from_dlpack
from typing_extensions import override

from posebatch.core.images import DeviceImages, DevicePlane, FrameBatch, Images, YuvImages
from posebatch.pose.pixels import RgbPixels
from posebatch.pose.yuv_pixels import YuvPixels


def to_device(images: Images, device: str) -> RgbPixels | YuvPixels:
    """Move the images of a batch to the device of the networks, ``cpu`` or ``cuda``."""
    if isinstance(images, _Sent):
        return images.wait()
    if isinstance(images, DeviceImages):
        return YuvPixels(images.coding, [_stacked(planes) for planes in zip(*images.frames, strict=True)])
    if isinstance(images, YuvImages):
        planes = [torch.from_numpy(plane).to(device, non_blocking=True) for plane in images.planes]
        return YuvPixels(images.coding, planes)
    assert isinstance(images, np.ndarray)
    return RgbPixels(torch.from_numpy(images).to(device, non_blocking=True))


def pinned_array(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """An uninitialised array in pinned memory, from which a GPU can copy while the CPU works."""
    kind = {np.uint8: torch.uint8, np.uint16: torch.uint16}[dtype]
    return torch.empty(shape, dtype=kind, pin_memory=True).numpy()


class Uploads:
    """Copies batches to the GPU from the decoding thread, while the networks work on earlier batches."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def send(self, batch: FrameBatch) -> FrameBatch:
        """Start the copy of a batch's images; returns the batch with `_Sent` images."""
        return replace(batch, images=self._send_images(batch.images))

    def _send_images(self, images: Images) -> _Sent:
        # A GPU's decoder works on the default stream. A copy on that stream ends before the decoder reuses the memory.
        stream = torch.cuda.default_stream() if isinstance(images, DeviceImages) else self._stream
        with torch.cuda.stream(stream):
            return _Sent(images, to_device(images, "cuda"), stream.record_event())


@dataclass(frozen=True)
class _Sent(Images):
    """Images that are being copied to the GPU. Their memory on the CPU must not change until `wait` returns."""

    _images: Images
    _pixels: RgbPixels | YuvPixels
    _copied: torch.cuda.Event

    @override
    def __len__(self) -> int:
        return len(self._images)

    @property
    @override
    def nbytes(self) -> int:
        return self._images.nbytes

    def wait(self) -> RgbPixels | YuvPixels:
        """Wait for the copy, and return the images on the GPU."""
        self._copied.synchronize()
        self._pixels.keep_until_done(torch.cuda.current_stream())
        return self._pixels


def _stacked(planes: Sequence[DevicePlane]) -> torch.Tensor:
    """Copy one plane of several frames into one tensor on the GPU."""
    # PyAV takes no stream. It works on the default stream, so these copies have to run there too.
    return torch.stack([from_dlpack(plane.__dlpack__()) for plane in planes])
