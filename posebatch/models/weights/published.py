"""Published weight files of other projects: their addresses, hashes and accuracy. Data only.

The sources were read on 2026-11-23: microsoft/human-pose-estimation.pytorch (README.md), open-mmlab/mmpose (the ``.md``
and ``.yml`` of ``resnet*_coco`` and ``mobilenetv2_coco`` in versions 0.x and 1.x) and torchvision 0.26. All addresses
and figures are from there. Two groups are left out: mmpose 1.x's ResNet-101 at 384x288, whose published address is that
of the 256x192 file; and mmpose's networks with other backbones or heads (ResNeXt, SE-ResNet, ResNet-v1d, visibility
head). No model zoo was found that publishes ResNet-18 or ResNet-34 on COCO as torch files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8})(?:_\d{8})?\.pth$")


@dataclass(frozen=True)
class PublishedFile:
    """One published weight file."""

    file_name: str
    """The published name, which caches and mirrors keep."""
    url: str
    """Address for a download without a browser; empty if there is none."""
    page: str
    """The authors' download page."""

    @property
    def sha256_prefix(self) -> str:
        """The first 8 digits of the sha256, which torchvision and mmpose put into the file name; empty without them."""
        match = _HASH_IN_NAME.search(self.file_name)
        return match[1] if match else ""


@dataclass(frozen=True)
class PublishedPose:
    """A SimpleBaseline network trained on COCO train2017."""

    name: str
    architecture: str
    """One of `posebatch.models.weights.records.POSE_ARCHITECTURES`."""
    input_size_wh: tuple[int, int]
    recipe: Literal["paper", "mmpose"]
    """The code of the training: the paper's reads images as BGR, mmpose's as RGB. All else is equal."""
    ap: float
    """The authors' OKS AP on COCO val2017: flip test, boxes of a detector with person AP 0.564."""
    training: str
    file: PublishedFile


@dataclass(frozen=True)
class PublishedDetector:
    """One of torchvision's detectors for COCO's 80 classes."""

    name: str
    box_ap: float
    """Box AP on COCO val2017, 80 classes."""
    parameters: int
    gflops: float
    """For torchvision's own example; a multiplication and an addition count as two."""
    file: PublishedFile


_PAPER_FOLDER = "https://drive.google.com/drive/folders/13_wJ6nC7my1KKouMkQMqyr9r1ZnLnukP"
"""Linked in the paper's repository, which also links to a copy on OneDrive."""


_MMPOSE_0 = "https://download.openmmlab.com/mmpose/top_down"


_MMPOSE_1 = "https://download.openmmlab.com/mmpose/v1/body_2d_keypoint/topdown_heatmap/coco"


_SIZES_WH: Final = {"256x192": (192, 256), "384x288": (288, 384)}
"""Width and height by the sources' notation, height x width."""


def _paper(depth: int, size: str, ap: float) -> PublishedPose:
    file = PublishedFile(f"pose_resnet_{depth}_{size}.pth.tar", "", _PAPER_FOLDER)
    name = f"paper_resnet{depth}_{size}"
    return PublishedPose(
        name, f"resnet{depth}", _SIZES_WH[size], "paper", ap, "by the paper's authors, 140 epochs", file
    )


def _mmpose(name: str, url: str, ap: float) -> PublishedPose:
    version, backbone, size, *variant = name.split("_")
    training = f"by mmpose {'1.x' if version == 'mmpose' else '0.x'}, 210 epochs"
    if variant:
        training += {"dark": ", DARK's unbiased targets; AP with its decoding", "fp16": ", in fp16"}[variant[0]]
    file = PublishedFile(url.rsplit("/", 1)[1], url, "https://github.com/open-mmlab/mmpose")
    architecture = "mobilenet_v2_1280" if backbone == "mobilenetv2" else backbone
    return PublishedPose(name, architecture, _SIZES_WH[size], "mmpose", ap, training, file)


_MMPOSE_1_FILES: Final = (
    ("mmpose_mobilenetv2_256x192", "td-hm_mobilenetv2_8xb64-210e_coco-256x192-55a04c35_20221016.pth", 0.648),
    ("mmpose_mobilenetv2_384x288", "td-hm_mobilenetv2_8xb64-210e_coco-384x288-d3ab1457_20221013.pth", 0.677),
    ("mmpose_resnet50_256x192", "td-hm_res50_8xb64-210e_coco-256x192-04af38ce_20220923.pth", 0.718),
    ("mmpose_resnet50_384x288", "td-hm_res50_8xb64-210e_coco-384x288-7b8db90e_20220923.pth", 0.731),
    ("mmpose_resnet101_256x192", "td-hm_res101_8xb64-210e_coco-256x192-065d3625_20220926.pth", 0.728),
    ("mmpose_resnet152_256x192", "td-hm_res152_8xb32-210e_coco-256x192-0345f330_20220928.pth", 0.736),
    ("mmpose_resnet152_384x288", "td-hm_res152_8xb32-210e_coco-384x288-7fbb906f_20220927.pth", 0.750),
    ("mmpose_resnet50_256x192_fp16", "td-hm_res50_fp16-8xb64-210e_coco-256x192-463da051_20220927.pth", 0.716),
    ("mmpose_resnet50_256x192_dark", "td-hm_res50_dark-8xb64-210e_coco-256x192-c129dcb6_20220926.pth", 0.724),
    ("mmpose_resnet50_384x288_dark", "td-hm_res50_dark-8xb64-210e_coco-384x288-8b90b538_20220926.pth", 0.735),
    ("mmpose_resnet101_256x192_dark", "td-hm_res101_dark-8xb64-210e_coco-256x192-528ec248_20220926.pth", 0.733),
    ("mmpose_resnet101_384x288_dark", "td-hm_res101_dark-8xb64-210e_coco-384x288-487d40a4_20220926.pth", 0.749),
    ("mmpose_resnet152_256x192_dark", "td-hm_res152_dark-8xb32-210e_coco-256x192-f754df5f_20221031.pth", 0.743),
    ("mmpose_resnet152_384x288_dark", "td-hm_res152_dark-8xb32-210e_coco-384x288-329f8454_20221031.pth", 0.755),
)


_MMPOSE_0_FILES: Final = (
    ("mmpose0_mobilenetv2_256x192", "mobilenetv2/mobilenetv2_coco_256x192-d1e58e7b_20200727.pth", 0.646),
    ("mmpose0_mobilenetv2_384x288", "mobilenetv2/mobilenetv2_coco_384x288-26be4816_20200727.pth", 0.673),
    ("mmpose0_resnet50_256x192", "resnet/res50_coco_256x192-ec54d7f3_20200709.pth", 0.718),
    ("mmpose0_resnet50_384x288", "resnet/res50_coco_384x288-e6f795e9_20200709.pth", 0.731),
    ("mmpose0_resnet101_256x192", "resnet/res101_coco_256x192-6e6babf0_20200708.pth", 0.726),
    ("mmpose0_resnet101_384x288", "resnet/res101_coco_384x288-8c71bdc9_20200709.pth", 0.748),
    ("mmpose0_resnet152_256x192", "resnet/res152_coco_256x192-f6e307c2_20200709.pth", 0.735),
    ("mmpose0_resnet152_384x288", "resnet/res152_coco_384x288-3860d4c9_20200709.pth", 0.750),
    ("mmpose0_resnet50_256x192_dark", "resnet/res50_coco_256x192_dark-43379d20_20200709.pth", 0.724),
    ("mmpose0_resnet50_384x288_dark", "resnet/res50_coco_384x288_dark-33d3e5e5_20210203.pth", 0.735),
    ("mmpose0_resnet101_256x192_dark", "resnet/res101_coco_256x192_dark-64d433e6_20200812.pth", 0.732),
    ("mmpose0_resnet101_384x288_dark", "resnet/res101_coco_384x288_dark-cb45c88d_20210203.pth", 0.749),
    ("mmpose0_resnet152_256x192_dark", "resnet/res152_coco_256x192_dark-ab4840d5_20200812.pth", 0.745),
    ("mmpose0_resnet152_384x288_dark", "resnet/res152_coco_384x288_dark-d3b8ebd7_20210203.pth", 0.757),
)


PUBLISHED_POSES: Final[Mapping[str, PublishedPose]] = {
    pose.name: pose
    for pose in (
        *(_mmpose(name, f"{_MMPOSE_1}/{file_name}", ap) for name, file_name, ap in _MMPOSE_1_FILES),
        *(_mmpose(name, f"{_MMPOSE_0}/{file_name}", ap) for name, file_name, ap in _MMPOSE_0_FILES),
        _paper(50, "256x192", 0.704),
        _paper(50, "384x288", 0.722),
        _paper(101, "256x192", 0.714),
        _paper(101, "384x288", 0.736),
        _paper(152, "256x192", 0.720),
        _paper(152, "384x288", 0.743),
    )
}
"""By name. mmpose retrained all networks for its version 1.x; those of 0.x are other weights of equal accuracy."""


def _torchvision(name: str, file_suffix: str) -> PublishedFile:
    file_name = f"{name}{file_suffix}"
    page = "https://github.com/pytorch/vision"
    return PublishedFile(file_name, f"https://download.pytorch.org/models/{file_name}", page)


_DETECTOR_FIGURES: Final = (
    ("fasterrcnn_resnet50_fpn_v2", "_coco-dd69338a.pth", 0.467, 43_712_278, 560.742),
    ("fasterrcnn_mobilenet_v3_large_320_fpn", "-907ea3f9.pth", 0.228, 19_386_354, 1.438),
    ("ssdlite320_mobilenet_v3_large", "_coco-a79551df.pth", 0.213, 3_440_060, 1.166),
    ("retinanet_resnet50_fpn_v2", "_coco-5905b1c5.pth", 0.415, 38_198_935, 304.476),
    ("fcos_resnet50_fpn", "_coco-99b0c9b7.pth", 0.392, 32_269_600, 256.414),
)


TORCHVISION_DETECTORS: Final[Mapping[str, PublishedDetector]] = {
    name: PublishedDetector(name, box_ap, parameters, gflops, _torchvision(name, file_suffix))
    for name, file_suffix, box_ap, parameters, gflops in _DETECTOR_FIGURES
}
"""By torchvision's names."""


TORCHVISION_BACKBONES: Final[Mapping[str, PublishedFile]] = {
    "resnet18": _torchvision("resnet18", "-f37072fd.pth"),
    "resnet34": _torchvision("resnet34", "-b627a593.pth"),
    "resnet50": _torchvision("resnet50", "-0676ba61.pth"),
    "resnet101": _torchvision("resnet101", "-63fe2227.pth"),
    "resnet152": _torchvision("resnet152", "-394f9c45.pth"),
    "mobilenet_v2": _torchvision("mobilenet_v2", "-b0353104.pth"),
}
"""ImageNet classifiers by architecture: initial weights for training a backbone, also in the paper."""


POSE_PARAMETERS: Final[Mapping[str, int]] = {
    "resnet18": 15_376_721,
    "resnet34": 25_484_881,
    "resnet50": 33_999_697,
    "resnet101": 52_991_825,
    "resnet152": 68_635_473,
    "mobilenet_v2": 5_225_489,
    "mobilenet_v2_d128": 2_994_321,
    "mobilenet_v2_1280": 9_569_809,
    "mobilenet_v2_w175_d128_centred": 7_094_321,
}
"""Number of parameters of SimpleBaseline, by architecture."""


POSE_GFLOPS_256X192: Final[Mapping[str, float]] = {
    "resnet18": 5.794,
    "resnet34": 9.418,
    "resnet50": 10.853,
    "resnet101": 18.126,
    "resnet152": 25.399,
    "mobilenet_v2": 2.713,
    "mobilenet_v2_d128": 1.127,
    "mobilenet_v2_1280": 3.130,
    "mobilenet_v2_w175_d128_centred": 2.250,
}
"""GFLOPs of SimpleBaseline for one crop of 192 x 256 pixels (w x h); a multiplication and an addition count as two."""


EMBEDDED_DETECTOR_PARAMETERS: Final = 2_072_152


EMBEDDED_DETECTOR_GFLOPS: Final = 1.188
"""For one frame; a multiplication and an addition count as two."""


def pose_gflops(architecture: str, input_size_wh: tuple[int, int]) -> float:
    """GFLOPs of SimpleBaseline for one crop, which are proportional to the area of the input."""
    return POSE_GFLOPS_256X192[architecture] * math.prod(input_size_wh) / (192 * 256)
