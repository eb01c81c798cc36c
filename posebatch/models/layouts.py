"""How others name the tensors of the same networks, from the names alone.

A checkpoint's layout is recognised by its keys, and each key gets the name that our networks give it:

===================  ==============================================  =====================================
layout               keys                                            whose
===================  ==============================================  =====================================
``plain``            ``conv1.weight``, ``deconv_layers.0.weight``    the paper's code, and ours
``mmpose 0.x``       ``backbone.conv1.weight``, ``keypoint_head.``   mmpose before 1.0
``mmpose 1.x``       ``backbone.conv1.weight``, ``head.``            mmpose from 1.0 on
``classifier``       ``conv1.weight`` or ``features.0.0.weight``     torchvision; the convolutions only
===================  ==============================================  =====================================

All may stand below ``module.``, as training on several GPUs leaves it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from posebatch.errors import WeightsError

Layout = Literal["plain", "mmpose 0.x", "mmpose 1.x", "classifier"]

_HEAD = ("deconv_layers.", "final_layer.")
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
}
_MOBILENET_BLOCKS = 18
"""Of torchvision's ``features``, without the last convolution, which SimpleBaseline on it has not."""


def find_layout(keys: Collection[str]) -> Layout:
    """The layout of a checkpoint with these keys. Raises `WeightsError` that names the first few when it is none."""
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
    """From each key of a pose network's checkpoint to our name for it; keys without a counterpart keep theirs.

    Raises `WeightsError` when the layout is not known, or is that of a classifier.
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
    return {key: _without_prefix(name, prefixes) for key, name in bare.items()}


def backbone_keys(keys: Collection[str]) -> dict[str, str]:
    """From each key of a backbone's tensors to our name for it, from a pose network or a classifier of any layout.

    What else the checkpoint holds (heads, classifiers) is left out. Raises `WeightsError` when the layout is not known.
    """
    if find_layout(keys) != "classifier":
        return {key: name for key, name in pose_keys(keys).items() if not name.startswith(_HEAD)}
    names = {key: _classifier_name(name) for key, name in _unwrapped(keys).items()}
    return {key: name for key, name in names.items() if name is not None}


def is_head(key: str) -> bool:
    """Whether one of our keys belongs to what follows the backbone."""
    return key.startswith(_HEAD)


def find_architecture(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The architecture of a pose network from its shapes by our keys; None when it is none of ours."""
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


def _classifier_name(name: str) -> str | None:
    if name.startswith(("fc.", "classifier.")):
        return None
    if not name.startswith("features."):
        return name
    block, _, rest = name.removeprefix("features.").partition(".")
    return f"backbone.{block}.{rest}" if int(block) < _MOBILENET_BLOCKS else None
