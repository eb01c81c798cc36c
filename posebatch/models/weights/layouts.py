"""Layouts of checkpoints: other projects' names for the tensors of the same networks.

The keys of a checkpoint show its layout. Each key is mapped to the name in our networks:

===================  ==============================================  =====================================
layout               keys                                            source
===================  ==============================================  =====================================
``plain``            ``conv1.weight``, ``deconv_layers.0.weight``    the paper's code, and ours
``mmpose 0.x``       ``backbone.conv1.weight``, ``keypoint_head.``   mmpose before 1.0
``mmpose 1.x``       ``backbone.conv1.weight``, ``head.``            mmpose from 1.0 on
``classifier``       ``conv1.weight`` or ``features.0.0.weight``     torchvision; the convolutions only
===================  ==============================================  =====================================

All keys may have the prefix ``module.`` of training on several GPUs.

mmpose's ResNet has the paper's names below ``backbone.``. Its MobileNetV2 (``mmpose/models/backbones/mobilenet_v2.py``,
the same in 0.29 and 1.3) has names of its own in torchvision's order, which is ours. These properties were compared and
are equal: channels, repetitions and strides of the stages; the expansion in each block (none in the first); residuals
(stride 1 and equal channels); paddings; no bias before a batch norm, whose eps is 1e-5; ReLU6 after all but the last
convolution of a block; the last convolution of 1280 channels, on which mmpose's head is built.

==================================  ===========================================
mmpose                              ours
==================================  ===========================================
``conv1.conv``, ``conv1.bn``        ``backbone.0.0``, ``backbone.0.1``
``layer2.1.conv.0.conv``, ``.bn``   ``backbone.3.conv.0.0``, ``.0.1``
``layer2.1.conv.2.conv``, ``.bn``   ``backbone.3.conv.2``, ``backbone.3.conv.3``
``conv2.conv``, ``conv2.bn``        ``backbone.18.0``, ``backbone.18.1``
==================================  ===========================================

Blocks are numbered through all layers. The last convolution and batch norm of a block have names of their own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Literal

from posebatch.core.errors import WeightsError

Layout = Literal["plain", "mmpose 0.x", "mmpose 1.x", "classifier"]


_HEAD = ("deconv_layers.", "final_layer.")


_CLASSIFIER = ("fc.", "classifier.")


_MMPOSE_HEADS: Mapping[Layout, str] = {"mmpose 0.x": "keypoint_head.", "mmpose 1.x": "head."}


_WRAPPER = "module."


_RESNET_DEPTHS = {
    # (has three convolutions in a block, blocks in layer3): depth
    (False, 2): 18,
    (False, 6): 34,
    (True, 6): 50,
    (True, 23): 101,
    (True, 36): 152,
}


_MOBILENETS: Mapping[tuple[int, ...], str] = {
    # shape of the first deconvolution: architecture
    (320, 256, 4, 4): "mobilenet_v2",
    (320, 128, 4, 4): "mobilenet_v2_d128",
    (1280, 256, 4, 4): "mobilenet_v2_1280",
    (560, 128, 4, 4): "mobilenet_v2_w175_d128_centred",
}


_MOBILENET_STAGES = (1, 2, 3, 4, 3, 3, 1)
"""Number of blocks in each of mmpose's ``layer1`` to ``layer7``. They are 1 to 17 of torchvision's ``features``."""


_FIRST_CONVOLUTION = "backbone.0."


_LAST_CONVOLUTION = "backbone.18."


_MMPOSE_BLOCK = re.compile(r"layer([1-7])\.(\d)\.conv\.(\d)\.(conv|bn)\.(\w+)")


_MMPOSE_CONVOLUTION = re.compile(r"conv([12])\.(conv|bn)\.(\w+)")


def find_layout(keys: Collection[str]) -> Layout:
    """The layout of a checkpoint with these keys. Raises `WeightsError` with the first keys if it is unknown."""
    bare = set(_unwrapped(keys).values())
    if "deconv_layers.0.weight" in bare:
        return "plain"
    for layout, head in _MMPOSE_HEADS.items():
        if f"{head}deconv_layers.0.weight" in bare and any(key.startswith("backbone.") for key in bare):
            return layout
    if not any(key.startswith(("deconv", "backbone.")) for key in bare) and bare & {
        "conv1.weight",
        "features.0.0.weight",
    }:
        return "classifier"
    first = ", ".join(sorted(keys)[:3]) or "none at all"
    raise WeightsError(
        f"the names of the tensors ({first}) are of no layout of SimpleBaseline that is known: the paper's, "
        "mmpose 0.x, mmpose 1.x, or our own"
    )


def pose_keys(keys: Collection[str]) -> dict[str, str]:
    """Map each key of a pose network's checkpoint to our name; a key without a counterpart keeps its name.

    Raises `WeightsError` when the layout is unknown, or is that of a classifier.
    """
    layout = find_layout(keys)
    if layout == "classifier":
        raise WeightsError(
            "these are the weights of an image classifier: a start for training a pose network, but not one, "
            "because there are no deconv_layers"
        )
    bare = _unwrapped(keys)
    if layout == "plain":
        return bare
    prefixes = ("backbone.", _MMPOSE_HEADS[layout])
    names = {key: _without_prefix(name, prefixes) for key, name in bare.items()}
    if "conv1.conv.weight" in names.values():
        return {key: _mobilenet_name(name) for key, name in names.items()}
    return names


def backbone_keys(keys: Collection[str], wanted: Collection[str]) -> dict[str, str]:
    """Map each key of the backbone in a pose network or classifier of any layout to our name.

    Heads and classifiers are left out. MobileNetV2's last convolution is left out unless it is among ``wanted``, the
    keys of the network to fill. Raises `WeightsError` when the layout is unknown.
    """
    if find_layout(keys) == "classifier":
        names = {key: _classifier_name(name) for key, name in _unwrapped(keys).items()}
    else:
        names = pose_keys(keys)
    keeps_last = any(key.startswith(_LAST_CONVOLUTION) for key in wanted)
    left_out = (*_HEAD, *_CLASSIFIER, *(() if keeps_last else (_LAST_CONVOLUTION,)))
    return {key: name for key, name in names.items() if not name.startswith(left_out)}


def is_head(key: str) -> bool:
    """Whether one of our keys belongs to the head, the layers after the backbone."""
    return key.startswith(_HEAD)


def find_architecture(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The architecture of a pose network with these shapes by our keys; None when it is unknown."""
    if "backbone.0.0.weight" in shapes:
        return _MOBILENETS.get(shapes.get("deconv_layers.0.weight", ()))
    blocks = {key.split(".")[1] for key in shapes if key.startswith("layer3.")}
    depth = _RESNET_DEPTHS.get(("layer1.0.conv3.weight" in shapes, len(blocks)))
    return None if depth is None else f"resnet{depth}"


def _unwrapped(keys: Collection[str]) -> dict[str, str]:
    wrapped = all(key.startswith(_WRAPPER) for key in keys)
    return {key: key.removeprefix(_WRAPPER) if wrapped else key for key in keys}


def _without_prefix(name: str, prefixes: tuple[str, ...]) -> str:
    return next((name.removeprefix(prefix) for prefix in prefixes if name.startswith(prefix)), name)


def _classifier_name(name: str) -> str:
    return f"backbone.{name.removeprefix('features.')}" if name.startswith("features.") else name


def _mobilenet_name(name: str) -> str:
    """Our name for a key of mmpose's MobileNetV2; other keys are not changed."""
    if match := _MMPOSE_CONVOLUTION.fullmatch(name):
        number, part, rest = match.groups()
        return f"{_FIRST_CONVOLUTION if number == '1' else _LAST_CONVOLUTION}{'0' if part == 'conv' else '1'}.{rest}"
    match = _MMPOSE_BLOCK.fullmatch(name)
    if match is None:
        return name
    stage, repetition, layer = (int(digit) for digit in match.groups()[:3])
    part, rest = match.groups()[3:]
    if repetition >= _MOBILENET_STAGES[stage - 1]:
        return name
    block = 1 + sum(_MOBILENET_STAGES[: stage - 1]) + repetition
    last_layer = 1 if block == 1 else 2  # the first block does not expand, so it has a convolution less
    if layer == last_layer:
        return f"backbone.{block}.conv.{layer if part == 'conv' else layer + 1}.{rest}"
    return f"backbone.{block}.conv.{layer}.{'0' if part == 'conv' else '1'}.{rest}"
