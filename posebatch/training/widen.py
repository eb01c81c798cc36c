"""A detector with a top-down path that starts from one without: at first it finds exactly the same boxes."""

from __future__ import annotations

import torch
from torchvision.models.detection.ssd import SSD


@torch.no_grad()
def widen_detector(plain: SSD, wide: SSD) -> None:
    """Fill ``wide`` (freshly initialised, with top-down path) from ``plain``.

    What is new keeps its random weights, but nothing reads it yet: the weights of its readers are 0.
    """
    known = plain.state_dict()
    for key, tensor in wide.state_dict().items():
        if key not in known:
            continue
        source = known[key]
        if source.shape == tensor.shape:
            tensor.copy_(source)
            continue
        if _reads_all_channels(source, tensor):
            tensor.zero_()
        tensor[tuple(slice(0, size) for size in source.shape)] = source


def _reads_all_channels(source: torch.Tensor, target: torch.Tensor) -> bool:
    """A pointwise convolution over more channels than before; the depthwise ones have grown along their first axis."""
    return source.dim() == 4 and source.shape[1] < target.shape[1]
