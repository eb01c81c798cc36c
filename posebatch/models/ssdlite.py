"""The embedded person detector's network: SSDLite on MobileNetV2, 320 x 320, from torchvision's building blocks.

Sources: W. Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016; M. Sandler et al., "MobileNetV2", CVPR 2018.
It differs from torchvision's own SSDLite in its first feature map, which has stride 8 instead of 16: a person in a
wide frame is often under 30 pixels tall after resizing to 320.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Final

import torch
from torch import nn
from torchvision.models import mobilenet_v2
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops.misc import Conv2dNormActivation

INPUT_SIZE: Final = 320
"""Pixels, both ways; the frame's aspect is not kept."""

NUM_CLASSES: Final = 2
"""Background and person."""

_STEPS = [8, 16, 32, 64, 107, 160]
_SCALES = [0.06, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
_MAP_CHANNELS = [32, 576, 320, 256, 256, 128]


class SSDLiteBackbone(nn.Module):
    """(n, 3, 320, 320) normalised image -> six feature maps of strides 8 to 160."""

    def __init__(self) -> None:
        super().__init__()
        features = mobilenet_v2(weights=None).features
        expand, *project = features[14].conv  # the block that goes from stride 16 to 32 is cut at its widest point
        self.stage0 = nn.Sequential(*features[:7])
        self.stage1 = nn.Sequential(*features[7:14], expand)
        self.stage2 = nn.Sequential(nn.Sequential(*project), *features[15:18])
        self.extra = nn.ModuleList([_extra_block(320, 256), _extra_block(256, 256), _extra_block(256, 128)])

    def forward(self, x: torch.Tensor) -> OrderedDict[str, torch.Tensor]:  # (n, 3, 320, 320)
        """Feature maps of normalised images, from fine to coarse."""
        maps = [self.stage0(x)]  # (n, 32, 40, 40)
        maps.append(self.stage1(maps[-1]))  # (n, 576, 20, 20)
        maps.append(self.stage2(maps[-1]))  # (n, 320, 10, 10)
        for block in self.extra:  # (n, 256, 5, 5), (n, 256, 3, 3), (n, 128, 2, 2)
            maps.append(block(maps[-1]))
        return OrderedDict((str(i), feature_map) for i, feature_map in enumerate(maps))


_norm_layer = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)


def _extra_block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Half the size: pointwise to half the channels, depthwise with stride 2, pointwise to all channels."""
    layer = partial(Conv2dNormActivation, norm_layer=_norm_layer, activation_layer=nn.ReLU6)
    half = out_channels // 2
    return nn.Sequential(
        layer(in_channels, half, kernel_size=1),
        layer(half, half, kernel_size=3, stride=2, groups=half),
        layer(half, out_channels, kernel_size=1),
    )


def build_person_ssd() -> SSD:
    """The network as a freshly initialised torchvision SSD; label 1 is a person, nothing is downloaded."""
    anchors = DefaultBoxGenerator([[2, 3]] * len(_STEPS), scales=_SCALES, steps=_STEPS)
    head = SSDLiteHead(_MAP_CHANNELS, anchors.num_anchors_per_location(), NUM_CLASSES, _norm_layer)
    return SSD(SSDLiteBackbone(), anchors, (INPUT_SIZE, INPUT_SIZE), NUM_CLASSES, head=head)
