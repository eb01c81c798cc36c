"""Every known layout of a checkpoint maps to our names for the tensors."""

import pytest
import torch
import torchvision
from support.weight_files import mmpose_checkpoint, paper_checkpoint

from posebatch.core.errors import WeightsError
from posebatch.models.networks.pose_resnet import build_pose_network
from posebatch.models.weights.layouts import backbone_keys, find_architecture, find_layout, is_head, pose_keys
from posebatch.models.weights.records import POSE_ARCHITECTURES


def meta_state(build, *arguments, **options):
    with torch.device("meta"):
        return build(*arguments, **options).state_dict()


@pytest.fixture(scope="module")
def resnet18():
    return meta_state(build_pose_network, "resnet18")


@pytest.mark.parametrize(
    ("wrap", "layout"),
    [
        (lambda state: state, "plain"),
        (lambda state: paper_checkpoint(state)["state_dict"], "plain"),
        (lambda state: mmpose_checkpoint(state, 0)["state_dict"], "mmpose 0.x"),
        (lambda state: mmpose_checkpoint(state, 1)["state_dict"], "mmpose 1.x"),
        (lambda state: {f"module.{k}": v for k, v in mmpose_checkpoint(state, 1)["state_dict"].items()}, "mmpose 1.x"),
    ],
)
def test_layouts_of_pose_networks_are_recognised(resnet18, wrap, layout: str):
    theirs = wrap(resnet18)
    assert find_layout(theirs) == layout
    ours = {name: theirs[key] for key, name in pose_keys(theirs).items()}
    assert ours.keys() == resnet18.keys()
    assert all(ours[key] is resnet18[key] for key in ours)
    assert {*backbone_keys(theirs, resnet18).values()} == {key for key in resnet18 if not is_head(key)}


@pytest.mark.parametrize("architecture", ["mobilenet_v2", "mobilenet_v2_1280"])
def test_pose_keys_keep_the_names_of_our_mobilenet(architecture: str):
    state = meta_state(build_pose_network, architecture)
    assert find_layout(state) == "plain"
    assert pose_keys(state) == {key: key for key in state}


@pytest.mark.parametrize("architecture", ["resnet18", "resnet152", "mobilenet_v2", "mobilenet_v2_1280"])
def test_backbone_keys_of_classifiers_are_our_backbone(architecture: str):
    classifier = meta_state(torchvision.models.get_model, architecture.removesuffix("_1280"))
    assert find_layout(classifier) == "classifier"
    network = meta_state(build_pose_network, architecture)
    assert {*backbone_keys(classifier, network).values()} == {key for key in network if not is_head(key)}
    with pytest.raises(WeightsError, match="weights of an image classifier"):
        pose_keys(classifier)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "none at all"),
        (["x"], r"\(x\)"),
        (["d", "c", "b", "a"], r"\(a, b, c\)"),
        (["backbone.body.conv1.weight", "roi_heads.x"], "roi_heads"),
        (["backbone.conv1.weight", "keypoint_head.final_layer.weight"], "backbone.conv1.weight"),
        (["module.conv1.weight", "deconv_layers.0.weight.x"], "no layout"),
    ],
)
def test_find_layout_refuses_unknown_layouts(keys: list[str], message: str):
    with pytest.raises(WeightsError, match=message):
        find_layout(keys)


@pytest.mark.parametrize("architecture", POSE_ARCHITECTURES)
def test_find_architecture_recognises_each_architecture(architecture: str):
    state = meta_state(build_pose_network, architecture)
    assert find_architecture({key: tuple(tensor.shape) for key, tensor in state.items()}) == architecture


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"layer1.0.conv3.weight": (1,), "layer3.0.conv1.weight": (1,)},
        {"backbone.0.0.weight": (32, 3, 3, 3)},
        {"backbone.0.0.weight": (32, 3, 3, 3), "deconv_layers.0.weight": (1280, 128, 4, 4)},
    ],
)
def test_find_architecture_returns_none_for_others(shapes):
    assert find_architecture(shapes) is None
