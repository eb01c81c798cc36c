"""Bytes: what a network's layers read and write, and what the machine's memory can do."""

from __future__ import annotations

import copy
from typing import Any, Final

import torch
from torch import nn

from benchmarks.timing import seconds_per_image, wait_for
from posebatch.models.networks.preparation import fold_batch_norms

_COPIED_MB: Final = {"cpu": 256, "cuda": 4096}
"""Far more than a cache holds."""


@torch.inference_mode()
def layer_mb(network: nn.Module, size_wh: tuple[int, int]) -> float:
    """MB in fp32 that the convolutions and linear layers of one image read and write, weights left out.

    As if each were run by itself, with batch norms and activation functions done on the way: what is not kept in a
    cache has to go through the memory.
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
    """Bytes read and written a second by copying, on torch's threads."""
    source = torch.zeros(_COPIED_MB[device] << 20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copied() -> int:
        target.copy_(source)
        wait_for(device)
        return 1

    return 2 * source.nbytes / seconds_per_image(copied, seconds) / 1e9
