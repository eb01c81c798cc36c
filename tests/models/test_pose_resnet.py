"""SimpleBaseline's layers: shapes, names and initial values."""

import pytest
import torch
from torch import nn

from posebatch.models.networks.pose_resnet import build_pose_network
from posebatch.models.weights.records import POSE_ARCHITECTURES

RESNET50_KEYS = {
    "conv1.weight": (64, 3, 7, 7),
    "bn1.running_mean": (64,),
    "layer1.0.conv2.weight": (64, 64, 3, 3),
    "layer1.0.downsample.0.weight": (256, 64, 1, 1),
    "layer4.2.bn3.weight": (2048,),
    "deconv_layers.0.weight": (2048, 256, 4, 4),
    "deconv_layers.1.running_var": (256,),
    "deconv_layers.3.weight": (256, 256, 4, 4),
    "deconv_layers.4.bias": (256,),
    "deconv_layers.6.weight": (256, 256, 4, 4),
    "deconv_layers.7.weight": (256,),
    "final_layer.weight": (17, 256, 1, 1),
    "final_layer.bias": (17,),
}


@pytest.mark.parametrize("architecture", ["", "ResNet50"])
def test_build_pose_network_refuses_unknown_architectures(architecture):
    with pytest.raises(ValueError, match="mobilenet_v2"):
        build_pose_network(architecture)


@pytest.mark.parametrize(
    ("architecture", "n", "height", "width"),
    [
        ("resnet18", 0, 64, 32),
        ("resnet18", 2, 32, 96),
        ("resnet50", 1, 64, 32),
        ("mobilenet_v2", 2, 32, 96),
        ("mobilenet_v2_1280", 1, 64, 32),
    ],
)
def test_pose_network_gives_heatmaps_of_a_quarter_of_the_input(architecture, n, height, width):
    network = build_pose_network(architecture).eval()
    with torch.inference_mode():
        heatmaps = network(torch.zeros(n, 3, height, width))
    assert heatmaps.shape == (n, 17, height // 4, width // 4)


def test_resnet50_has_the_key_names_of_the_papers_code():
    state = build_pose_network("resnet50").state_dict()
    assert {key: tuple(state[key].shape) for key in RESNET50_KEYS} == RESNET50_KEYS
    prefixes = {key.split(".")[0] for key in state}
    assert prefixes == {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "deconv_layers", "final_layer"}
    # 318 of resnet50 without classifier, 3 deconvolutions each with a batch norm of 5 tensors, final weight and bias
    assert len(state) == 318 + 3 * 6 + 2


def test_resnet_bottlenecks_have_stride_on_the_3x3_convolution():
    block = build_pose_network("resnet50").layer2[0]
    assert (block.conv1.stride, block.conv2.stride, block.conv3.stride) == ((1, 1), (2, 2), (1, 1))


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v2"])
def test_new_layers_are_initialised_as_in_the_papers_code(architecture):
    network = build_pose_network(architecture)
    for layer in (*network.deconv_layers[::3], network.final_layer):
        assert layer.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert not network.final_layer.bias.any()
    for layer in network.deconv_layers:
        if isinstance(layer, nn.BatchNorm2d):
            assert bool((layer.weight == 1).all())
            assert not layer.bias.any()


def test_architectures_are_those_of_the_paper_and_mobilenets():
    paper, mobilenets = POSE_ARCHITECTURES[:5], POSE_ARCHITECTURES[5:]
    assert paper == ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
    assert mobilenets == (
        "mobilenet_v2", "mobilenet_v2_d128", "mobilenet_v2_1280", "mobilenet_v2_w175_d128_centred"
    )  # fmt: skip
