"""SimpleBaseline: a backbone, three deconvolutions, one 1x1 convolution that gives a heatmap for each joint.

Source: B. Xiao, H. Wu, Y. Wei, "Simple Baselines for Human Pose Estimation and Tracking", ECCV 2018, and its code,
microsoft/human-pose-estimation.pytorch. Parameter names of the ResNet variants are those of that code, so its
checkpoints fit. Shapes at the ends of the lines are for a 192 x 256 (w x h) input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import nn
from torchvision.models import ResNet, mobilenet_v2, resnet18, resnet34, resnet50, resnet101, resnet152

from posebatch.models.registry import POSE_ARCHITECTURES
from posebatch.skeleton import NUM_KEYPOINTS

PAPER_WIDTH: Final = 256
"""Channels of the deconvolutions in the paper."""

_MOBILENETS: Final = {
    "mobilenet_v2": (PAPER_WIDTH, False),
    "mobilenet_v2_d128": (128, False),
    "mobilenet_v2_1280": (PAPER_WIDTH, True),
}
"""Width of the deconvolutions behind each MobileNetV2, and whether its last convolution is kept. The deconvolutions are
four fifths of the work at the paper's width, and two thirds at half of it."""

_RESNETS: Final[dict[str, Callable[..., ResNet]]] = {
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet101": resnet101,
    "resnet152": resnet152,
}

HEATMAP_STRIDE: Final = 4
"""Input pixels per heatmap pixel: the backbone divides by 32, the three deconvolutions give back 8."""

_NUM_DECONVS = 3


class PoseResNet(nn.Module):
    """SimpleBaseline on a ResNet; (n, 3, h, w) normalised image -> (n, 17, h/4, w/4) heatmaps.

    torchvision's blocks put the stride of a bottleneck on its 3x3 convolution, as the paper's code does.
    """

    def __init__(self, architecture: str) -> None:
        super().__init__()
        resnet = _RESNETS[architecture](weights=None)
        self.conv1 = resnet.conv1
        self.bn1 = resnet.bn1
        self.relu = resnet.relu
        self.maxpool = resnet.maxpool
        self.layer1 = resnet.layer1
        self.layer2 = resnet.layer2
        self.layer3 = resnet.layer3
        self.layer4 = resnet.layer4
        self.deconv_layers = _deconv_layers(resnet.fc.in_features)
        self.final_layer = _final_layer()

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (n, 3, 256, 192)
        """Heatmaps of normalised images."""
        x = self.relu(self.bn1(self.conv1(x)))  # (n, 64, 128, 96)
        x = self.maxpool(x)  # (n, 64, 64, 48)
        x = self.layer1(x)  # (n, c/8, 64, 48), c = 512 for resnet18 and 34, otherwise 2048
        x = self.layer2(x)  # (n, c/4, 32, 24)
        x = self.layer3(x)  # (n, c/2, 16, 12)
        x = self.layer4(x)  # (n, c, 8, 6)
        x = self.deconv_layers(x)  # (n, 256, 64, 48)
        heatmaps: torch.Tensor = self.final_layer(x)  # (n, 17, 64, 48)
        return heatmaps


class PoseMobileNet(nn.Module):
    """SimpleBaseline on MobileNetV2; shapes as in `PoseResNet`, ``width`` for 256.

    Without MobileNetV2's last convolution, which widens 320 channels to 1280 for a classifier, unless
    ``last_convolution``, as in mmpose's.
    """

    def __init__(self, width: int, last_convolution: bool = False) -> None:
        super().__init__()
        features = mobilenet_v2(weights=None).features
        self.backbone = features if last_convolution else features[:-1]
        self.deconv_layers = _deconv_layers(1280 if last_convolution else 320, width)
        self.final_layer = _final_layer(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (n, 3, 256, 192)
        """Heatmaps of normalised images."""
        x = self.backbone(x)  # (n, 320 or 1280, 8, 6)
        x = self.deconv_layers(x)  # (n, 256, 64, 48)
        heatmaps: torch.Tensor = self.final_layer(x)  # (n, 17, 64, 48)
        return heatmaps


def _deconv_layers(in_channels: int, width: int = PAPER_WIDTH) -> nn.Sequential:
    """Three times twice the size: (n, in_channels, h, w) -> (n, width, 8h, 8w)."""
    layers: list[nn.Module] = []
    for channels in (in_channels, *[width] * (_NUM_DECONVS - 1)):
        deconv = nn.ConvTranspose2d(channels, width, kernel_size=4, stride=2, padding=1, bias=False)
        nn.init.normal_(deconv.weight, std=0.001)
        layers += [deconv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _final_layer(width: int = PAPER_WIDTH) -> nn.Conv2d:
    """One heatmap for each joint: (n, width, h, w) -> (n, 17, h, w)."""
    conv = nn.Conv2d(width, NUM_KEYPOINTS, kernel_size=1)
    nn.init.normal_(conv.weight, std=0.001)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def build_pose_network(architecture: str) -> nn.Module:
    """A freshly initialised network, one of `POSE_ARCHITECTURES`; nothing is downloaded.

    Raises ``ValueError`` for any other architecture.
    """
    if architecture not in POSE_ARCHITECTURES:
        raise ValueError(f"unknown pose architecture {architecture!r}; known: {', '.join(POSE_ARCHITECTURES)}")
    if architecture in _MOBILENETS:
        return PoseMobileNet(*_MOBILENETS[architecture])
    return PoseResNet(architecture)
