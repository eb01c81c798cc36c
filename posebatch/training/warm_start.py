"""Warm starts: initialise a network from the weights of a wider one or of a smaller one."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torchvision.models.detection.ssd import SSD

from posebatch.models.networks.pose_resnet import PoseMobileNet

_RIDGE = 1e-4
"""Added to the diagonal of the second moments, as a share of their mean: a silent channel would make them singular."""


@torch.no_grad()
def narrow_deconvolutions(network: PoseMobileNet, batches: Iterable[torch.Tensor], narrow: PoseMobileNet) -> None:
    """Initialise ``narrow``, whose deconvolutions have fewer channels, from ``network``.

    ``batches`` of normalised images (n, 3, h, w) tell which channels explain the others best. These are kept; the next
    layer reads the dropped channels as linear combinations of them. Both networks are put into eval mode. Their
    backbones must have equal shapes.
    """
    network.eval()
    narrow.eval()
    narrow.backbone.load_state_dict(network.backbone.state_dict())
    wide, slim = network.state_dict(), narrow.state_dict()  # views of the parameters, not copies
    moments = _second_moments(network, batches)
    reading = torch.eye(wide["deconv_layers.0.weight"].shape[0])
    for index, moment in moments.items():
        deconv, norm = f"deconv_layers.{index}.weight", f"deconv_layers.{index + 1}"
        kept, reconstruction = _choose_channels(moment, slim[deconv].shape[1])
        slim[deconv].copy_(torch.einsum("ki,iohw->kohw", reading, wide[deconv])[:, kept])
        for name in ("weight", "bias", "running_mean", "running_var"):
            slim[f"{norm}.{name}"].copy_(wide[f"{norm}.{name}"][kept])
        reading = reconstruction
    slim["final_layer.weight"].copy_(torch.einsum("ki,oihw->okhw", reading, wide["final_layer.weight"]))
    slim["final_layer.bias"].copy_(wide["final_layer.bias"])


def _second_moments(network: PoseMobileNet, batches: Iterable[torch.Tensor]) -> dict[int, torch.Tensor]:
    """Mean products of channels (width, width) after each deconvolution's ReLU, by the deconvolution's index."""
    moments: dict[int, torch.Tensor] = {}
    for images in batches:
        x = network.backbone(images)
        for index, layer in enumerate(network.deconv_layers):
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                flat = x.transpose(0, 1).flatten(1).double()
                moments[index - 2] = moments.get(index - 2, 0) + flat @ flat.T / flat.shape[1]
    return moments


def _choose_channels(moment: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The channels (width,) to keep, and the weights (width, all) that reconstruct all channels from them.

    Greedy pivoted Cholesky: each step adds the channel that explains most of the remaining second moments.
    """
    residual = moment + _RIDGE * moment.diagonal().mean() * torch.eye(len(moment), dtype=moment.dtype)
    regular = residual.clone()
    kept: list[int] = []
    for _ in range(width):
        explained = (residual**2).sum(dim=0) / residual.diagonal().clamp(min=1e-12)
        explained[kept] = -1
        best = int(explained.argmax())
        kept.append(best)
        residual = residual - torch.outer(residual[:, best], residual[best]) / residual[best, best]
    chosen = torch.tensor(sorted(kept))
    weights = torch.linalg.solve(regular[chosen][:, chosen], regular[chosen])
    return chosen, weights.float()


@torch.no_grad()
def widen_detector(plain: SSD, wide: SSD) -> None:
    """Initialise ``wide``, a new detector with a top-down path, from ``plain``, so that both give the same output.

    New layers keep their random weights. The weights of the layers that read them are 0.
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
    """Whether a pointwise convolution has more inputs than before. Depthwise ones have grown along their first axis."""
    return source.dim() == 4 and source.shape[1] < target.shape[1]
