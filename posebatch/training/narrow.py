"""A network with narrower deconvolutions that behaves like a wide one: a start for training, not a result.

After each deconvolution half of the channels are kept, those that together say most about all of them, and what reads
them is adapted so that it sees the best linear reconstruction of the others. Source of the idea: Luo et al., "ThiNet",
ICCV 2017, and He et al., "Channel Pruning", ICCV 2017.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from posebatch.models.pose_resnet import PoseMobileNet

_RIDGE = 1e-4
"""Added to the diagonal, as a share of the mean variance, so that silent channels do no harm."""


@torch.no_grad()
def narrow_deconvolutions(network: PoseMobileNet, batches: Iterable[torch.Tensor], narrow: PoseMobileNet) -> None:
    """Fill ``narrow`` from ``network``, judging channels on ``batches`` of normalised images (n, 3, h, w).

    Both networks are put into eval mode. The backbones must be equal in shape.
    """
    network.eval()
    narrow.eval()
    narrow.backbone.load_state_dict(network.backbone.state_dict())
    wide, slim = network.state_dict(), narrow.state_dict()  # the tensors themselves, not copies
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
    """After each ReLU of the deconvolutions: channels' mean products (width, width), by the deconvolution's index."""
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
    """The channels (width,) to keep, and the weights (width, all) that give all of them back from these.

    Greedy: each time the channel whose addition explains most of what is not explained yet (pivoted Cholesky,
    weighted by what the residuals share).
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
