"""The embedded person detector's network: SSDLite on MobileNetV2, 320 x 320, from torchvision's building blocks.

Sources: W. Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016; M. Sandler et al., "MobileNetV2", CVPR 2018.
The first feature map has stride 8, and 16 in torchvision's own SSDLite: a person in a wide frame is often under 30
pixels tall after resizing to 320. With a top-down path (T.-Y. Lin et al., "Feature Pyramid Networks", CVPR 2017) the
two finest maps also receive the features of the coarser ones.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import nn

from posebatch.models.networks.vision import (
    SSD,
    Conv2dNormActivation,
    DefaultBoxGenerator,
    SSDLiteHead,
    mobilenet_v2,
)

INPUT_SIZE: Final = 320
"""Width and height for which the network is trained, pixels. The aspect of the frame is not kept."""


NUM_CLASSES: Final = 2
"""Background and person."""


STRIDES: Final = (8, 16, 32, 64, 128, 256)
"""Distance between neighbouring locations of each feature map, pixels of the input."""


_STEPS = [8, 16, 32, 64, 107, 160]
"""Distance between the default boxes of each map at 320, pixels. Those of the two coarsest maps are spread evenly."""


_SCALES = [0.06, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
"""Sizes of the default boxes of each map, in units of the frame. A map also has boxes between its size and the next."""


_MAP_CHANNELS = [32, 576, 320, 256, 256, 128]


_TOP_DOWN_CHANNELS = 96


class SSDLiteBackbone(nn.Module):
    """MobileNetV2 and extra blocks: (n, 3, 320, 320) normalised images -> six feature maps."""

    def __init__(self, top_down: bool) -> None:
        super().__init__()
        features = mobilenet_v2(weights=None).features
        expand, *project = features[14].conv  # the block from stride 16 to 32 is split where it has most channels
        self.stage0 = nn.Sequential(*features[:7])
        self.stage1 = nn.Sequential(*features[7:14], expand)
        self.stage2 = nn.Sequential(nn.Sequential(*project), *features[15:18])
        self.extra = nn.ModuleList([_extra_block(320, 256), _extra_block(256, 256), _extra_block(256, 128)])
        self.top_down = TopDown() if top_down else None

    def forward(self, x: torch.Tensor) -> OrderedDict[str, torch.Tensor]:  # (n, 3, 320, 320)
        """Feature maps of normalised images, finest first."""
        maps = [self.stage0(x)]  # (n, 32, 40, 40)
        maps.append(self.stage1(maps[-1]))  # (n, 576, 20, 20)
        maps.append(self.stage2(maps[-1]))  # (n, 320, 10, 10)
        fine = self.top_down(*maps) if self.top_down is not None else None
        for block in self.extra:  # (n, 256, 5, 5), (n, 256, 3, 3), (n, 128, 2, 2)
            maps.append(block(maps[-1]))
        if fine is not None:
            maps[:2] = [torch.cat(pair, dim=1) for pair in zip(maps, fine, strict=False)]  # 128 and 672 channels
        return OrderedDict((str(i), feature_map) for i, feature_map in enumerate(maps))


class TopDown(nn.Module):
    """Passes features of coarser maps to finer ones: 96 more channels for the maps of stride 8 and 16."""

    def __init__(self) -> None:
        super().__init__()
        width = _TOP_DOWN_CHANNELS
        self.lateral = nn.ModuleList([_layer(channels, width, kernel_size=1) for channels in _MAP_CHANNELS[:3]])
        self.smooth = nn.ModuleList([_separable(width, width) for _ in range(2)])

    def forward(self, fine: torch.Tensor, middle: torch.Tensor, coarse: torch.Tensor) -> list[torch.Tensor]:
        """(n, 32, 40, 40), (n, 576, 20, 20), (n, 320, 10, 10) -> (n, 96, 40, 40), (n, 96, 20, 20)."""
        onto_fine, onto_middle, onto_coarse = self.lateral
        middle = self.smooth[1](onto_middle(middle) + F.interpolate(onto_coarse(coarse), scale_factor=2.0))
        return [self.smooth[0](onto_fine(fine) + F.interpolate(middle, scale_factor=2.0)), middle]


_norm_layer = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)


_layer = partial(Conv2dNormActivation, norm_layer=_norm_layer, activation_layer=nn.ReLU6)


def _separable(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """A depthwise 3x3 convolution, then a pointwise one."""
    return nn.Sequential(
        _layer(in_channels, in_channels, kernel_size=3, stride=stride, groups=in_channels),
        _layer(in_channels, out_channels, kernel_size=1),
    )


def _extra_block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Halve the map: pointwise to half the channels, depthwise with stride 2, pointwise to all channels."""
    half = out_channels // 2
    return nn.Sequential(_layer(in_channels, half, kernel_size=1), *_separable(half, out_channels, stride=2))


def build_person_ssd(architecture: str = "ssdlite_mobilenet_v2") -> SSD:
    """Build the network as a torchvision SSD with random weights; label 1 is a person. Nothing is downloaded.

    ``ssdlite_mobilenet_v2_fpn`` has the top-down path; ``ssdlite_mobilenet_v2`` has none.
    """
    top_down = architecture.endswith("_fpn")
    channels = [*_MAP_CHANNELS]
    if top_down:
        channels[:2] = [width + _TOP_DOWN_CHANNELS for width in channels[:2]]
    anchors = DefaultBoxGenerator([[2, 3]] * len(_STEPS), scales=_SCALES, steps=_STEPS)
    head = SSDLiteHead(channels, anchors.num_anchors_per_location(), NUM_CLASSES, _norm_layer)
    return SSD(SSDLiteBackbone(top_down), anchors, (INPUT_SIZE, INPUT_SIZE), NUM_CLASSES, head=head)
