"""Memory traffic: bytes that a network's layers read and write, and the bandwidth of the machine's memory."""

from __future__ import annotations

import copy
from typing import Any, Final

import torch
from torch import nn

from benchmarks.timing import seconds_per_image, wait_for
from posebatch.models.networks.preparation import fold_batch_norms

_COPIED_MB: Final = {"cpu": 256, "cuda": 4096}
"""Size of the copied block, MB: much larger than a cache."""


@torch.inference_mode()
def layer_mb(network: nn.Module, size_wh: tuple[int, int]) -> float:
    """MB in fp32 that convolutions and linear layers read and write for one image, without weights.

    Batch norms and activation functions count as fused. This is the traffic without any cache.
    """
    total = 0

    def count(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal total
        total += inputs[0].nbytes + output.nbytes

    plain = copy.deepcopy(network).eval()
    fold_batch_norms(plain)
    for layer in plain.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            layer.register_forward_hook(count)
    plain(torch.zeros(1, 3, *size_wh[::-1]))
    return total / 1e6


def memory_gb_per_s(device: str, seconds: float = 1.0) -> float:
    """GB read and written per second by copying, on torch's threads."""
    source = torch.zeros(_COPIED_MB[device] << 20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copied() -> int:
        target.copy_(source)
        wait_for(device)
        return 1

    return 2 * source.nbytes / seconds_per_image(copied, seconds) / 1e9
