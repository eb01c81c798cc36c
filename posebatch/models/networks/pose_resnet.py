"""SimpleBaseline: a backbone, three deconvolutions, one 1x1 convolution that gives a heatmap for each joint.

Source: B. Xiao, H. Wu, Y. Wei, "Simple Baselines for Human Pose Estimation and Tracking", ECCV 2018, and its code,
microsoft/human-pose-estimation.pytorch. Parameter names of the ResNet variants are those of that code, so its
checkpoints fit. Shapes at the ends of the lines are for a 192 x 256 (w x h) input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn
from torch.nn import functional
from torchvision.models import ResNet, mobilenet_v2, resnet18, resnet34, resnet50, resnet101, resnet152

from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.models.weights.records import POSE_ARCHITECTURES

PAPER_WIDTH: Final = 256
"""Channels of the deconvolutions in the paper."""


@dataclass(frozen=True)
class MobileNetShape:
    """What distinguishes one `PoseMobileNet` from another.

    The deconvolutions of the paper's width are four fifths of the work behind a backbone of width 1, those of 128
    channels two thirds of it.
    """

    deconv_width: int = PAPER_WIDTH
    """Channels of each deconvolution."""
    last_convolution: bool = False
    """Whether MobileNetV2's last convolution, which widens 320 channels to 1280, is kept, as in mmpose's."""
    backbone_width: float = 1.0
    """Channels of the backbone, times those of MobileNetV2."""
    centred: bool = False
    """Whether the last convolution of stride 2 pads on the right and bottom alone; see `RightBottomPadding`."""


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
"""Input pixels per heatmap pixel: the backbone divides by 32, the three deconvolutions give back 8."""


_NUM_DECONVS = 3


_LAST_STRIDE_BLOCK = 14
"""The block of MobileNetV2 with the last convolution of stride 2."""


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


class RightBottomPadding(nn.Conv2d):
    """A 3x3 convolution of stride 2 that pads one column on the right and one row at the bottom, as TensorFlow does.

    Symmetric padding centres output cell i on input cell 2i, this padding on 2i + 1. In the last convolution of stride
    2 that puts a feature of the backbone on input pixel 32i + 16, near the 32i + 15.5 that the deconvolutions expect.
    Height and width of the input must be even.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        """A convolution like ``convolution``, with fresh weights."""
        channels, groups = convolution.in_channels, convolution.groups
        super().__init__(channels, convolution.out_channels, 3, stride=2, padding=0, groups=groups, bias=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
        """(n, c, h, w) -> (n, c, h/2, w/2)."""
        return super().forward(functional.pad(input, (0, 1, 0, 1)))


class PoseMobileNet(nn.Module):
    """SimpleBaseline on MobileNetV2; feature shapes as in `PoseResNet`, with ``shape.deconv_width`` for 256."""

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
        return PoseMobileNet(_MOBILENETS[architecture])
    return PoseResNet(architecture)
