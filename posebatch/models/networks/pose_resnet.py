"""SimpleBaseline: a backbone, three deconvolutions, and a 1x1 convolution to one heatmap for each joint.

Source: B. Xiao, H. Wu, Y. Wei, "Simple Baselines for Human Pose Estimation and Tracking", ECCV 2018, and its code,
microsoft/human-pose-estimation.pytorch. The ResNet variants have the parameter names of that code, so its checkpoints
fit. Shapes at the ends of the lines are for a 192 x 256 (w x h) input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn
from torch.nn import functional

from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.models.networks.vision import (
    ResNet,
    mobilenet_v2,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
)
from posebatch.models.weights.records import POSE_ARCHITECTURES

PAPER_WIDTH: Final = 256
"""Channels of the deconvolutions in the paper."""


@dataclass(frozen=True)
class MobileNetShape:
    """The variants of `PoseMobileNet`.

    With a backbone of width 1, deconvolutions of the paper's width are four fifths of the network's work, and those of
    128 channels two thirds.
    """

    deconv_width: int = PAPER_WIDTH
    """Channels of each deconvolution."""
    last_convolution: bool = False
    """Whether the backbone includes MobileNetV2's last convolution, from 320 to 1280 channels, as in mmpose."""
    backbone_width: float = 1.0
    """Channels of the backbone relative to MobileNetV2's."""
    centred: bool = False
    """Whether the last convolution of stride 2 is a `RightBottomPadding`."""


_MOBILENETS: Final = {
    "mobilenet_v2": MobileNetShape(),
    "mobilenet_v2_d128": MobileNetShape(deconv_width=128),
    "mobilenet_v2_1280": MobileNetShape(last_convolution=True),
    "mobilenet_v2_w175_d128_centred": MobileNetShape(deconv_width=128, backbone_width=1.75, centred=True),
}


_RESNETS: Final[dict[str, Callable[..., ResNet]]] = {
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet101": resnet101,
    "resnet152": resnet152,
}


HEATMAP_STRIDE: Final = 4
"""Input pixels per heatmap pixel: the backbone divides by 32, and three deconvolutions multiply by 8."""


_NUM_DECONVS = 3


_LAST_STRIDE_BLOCK = 14
"""The block of MobileNetV2 with the last convolution of stride 2."""


class PoseResNet(nn.Module):
    """SimpleBaseline on a ResNet: (n, 3, h, w) normalised images -> (n, 17, h/4, w/4) heatmaps.

    torchvision puts the stride of a bottleneck on its 3x3 convolution, as the paper's code does.
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


class RightBottomPadding(nn.Conv2d):
    """A 3x3 convolution of stride 2 with padding on the right and bottom only, one pixel each, as in TensorFlow.

    Symmetric padding centres output cell i on input cell 2i; this padding centres it on 2i + 1. In the last convolution
    of stride 2 a feature of the backbone then lies on input pixel 32i + 16, near the 32i + 15.5 that the deconvolutions
    expect. Height and width of the input must be even.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        """A convolution with the channels and groups of ``convolution`` and random weights."""
        channels, groups = convolution.in_channels, convolution.groups
        super().__init__(channels, convolution.out_channels, 3, stride=2, padding=0, groups=groups, bias=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
        """(n, c, h, w) -> (n, c, h/2, w/2)."""
        return super().forward(functional.pad(input, (0, 1, 0, 1)))


class PoseMobileNet(nn.Module):
    """SimpleBaseline on MobileNetV2: (n, 3, h, w) normalised images -> (n, 17, h/4, w/4) heatmaps.

    The deconvolutions have ``shape.deconv_width`` channels instead of 256.
    """

    def __init__(self, shape: MobileNetShape) -> None:
        super().__init__()
        features = mobilenet_v2(weights=None, width_mult=shape.backbone_width).features
        self.backbone = features if shape.last_convolution else features[:-1]
        if shape.centred:
            block = self.backbone[_LAST_STRIDE_BLOCK].conv[1]  # convolution, batch norm, ReLU6
            block[0] = RightBottomPadding(block[0])
            nn.init.kaiming_normal_(block[0].weight, mode="fan_out")
        channels = self.backbone[-1][0].out_channels if shape.last_convolution else self.backbone[-1].out_channels
        self.deconv_layers = _deconv_layers(channels, shape.deconv_width)
        self.final_layer = _final_layer(shape.deconv_width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (n, 3, 256, 192)
        """Heatmaps of normalised images."""
        x = self.backbone(x)  # (n, 320 x backbone_width or 1280, 8, 6)
        x = self.deconv_layers(x)  # (n, 256, 64, 48)
        heatmaps: torch.Tensor = self.final_layer(x)  # (n, 17, 64, 48)
        return heatmaps


def _deconv_layers(in_channels: int, width: int = PAPER_WIDTH) -> nn.Sequential:
    """Three deconvolutions, each of which doubles the size: (n, in_channels, h, w) -> (n, width, 8h, 8w)."""
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
    """Build one of `POSE_ARCHITECTURES` with random weights; nothing is downloaded.

    Raises ``ValueError`` for an unknown architecture.
    """
    if architecture not in POSE_ARCHITECTURES:
        raise ValueError(f"unknown pose architecture {architecture!r}; known: {', '.join(POSE_ARCHITECTURES)}")
    if architecture in _MOBILENETS:
        return PoseMobileNet(_MOBILENETS[architecture])
    return PoseResNet(architecture)
