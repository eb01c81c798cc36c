"""What both networks need to run fast and repeatably: folded batch norms, the right memory format, constant batches."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def prepare_network(network: nn.Module, device: str, precision: torch.dtype) -> nn.Module:
    """Ready a network with loaded weights for inference: eval mode, batch norms folded, on ``device``.

    The network is changed and returned. Crops per second of the embedded pose network in fp32 on one Zen 3 thread, as
    loaded / folded / folded and channels last: 19 / 21 / 25 at batch 4; the detector: 16 / 23 / 29.
    """
    network.eval().requires_grad_(False).float()
    fold_batch_norms(network)
    return network.to(device=device, dtype=precision, memory_format=torch.channels_last)  # type: ignore[call-overload]


def fold_batch_norms(module: nn.Module, besides: Collection[str] = ()) -> None:
    """Fold each batch norm into the convolution before it, leaving an identity in its place.

    Children of ``module`` whose names are in ``besides`` stay as they are.

    A pair is a convolution and a batch norm that follow each other among the children of one module; that is the order
    in which they run in every network here. All of them must be in eval mode.
    """
    for (name, child), (norm_name, norm) in pairwise(list(module.named_children())):
        if isinstance(child, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
            fused = fuse_conv_bn_eval(child, norm, transpose=isinstance(child, nn.ConvTranspose2d))
            assert fused.bias is not None
            fused.bias.requires_grad_(child.weight.requires_grad)  # torch leaves a bias that is new out of training
            setattr(module, name, fused)
            setattr(module, norm_name, nn.Identity())
    for name, child in module.named_children():
        if name not in besides:
            fold_batch_norms(child)


def unfold_batch_norms(plain: nn.Module, folded: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of `fold_batch_norms` on a state dict: weights that fit ``plain``, a network with its batch norms.

    Each batch norm that was folded is left to add the bias and do nothing else. Others keep their weights.
    """
    state = {key: folded.get(key, value) for key, value in plain.state_dict().items()}
    for prefix, module in plain.named_modules():
        for (name, child), (norm_name, norm) in pairwise(list(module.named_children())):
            if isinstance(child, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
                bias = folded.get(".".join(filter(None, (prefix, name, "bias"))))
                if bias is None:
                    continue
                start = ".".join(filter(None, (prefix, norm_name)))
                state[f"{start}.weight"] = torch.full_like(bias, (1 + norm.eps) ** 0.5)
                state[f"{start}.bias"] = bias
                state[f"{start}.running_mean"] = torch.zeros_like(bias)
                state[f"{start}.running_var"] = torch.ones_like(bias)
    return state


def pad_batch(batch: torch.Tensor, size: int) -> torch.Tensor:
    """Append zeros until the first dimension is ``size``: (n, ...) -> (size, ...).

    A kernel's rounding depends on the shape of the batch, not on the neighbours in it; so a constant shape makes each
    result a function of its own input alone. Raises ``ValueError`` when the batch is larger than ``size``.
    """
    missing = size - len(batch)
    if missing < 0:
        raise ValueError(f"batch of {len(batch)}, but the batch size is {size}")
    return torch.cat([batch, batch.new_zeros(missing, *batch.shape[1:])]) if missing else batch
