"""mmpose's SimpleBaseline on MobileNetV2: our network gives the same heatmaps from mmpose's tensors.

The reference implementation here follows the code of mmpose and of mmcv's ``ConvModule``: a list of stages, and
functions that read mmpose's names. It uses neither our code nor torchvision's.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.weight_files import mmpose_checkpoint, renamed_by_hash
from torch.nn import functional

from posebatch.cli.entry import main
from posebatch.models.networks.pose_network import load_pose_network
from posebatch.models.networks.pose_resnet import build_pose_network
from posebatch.models.weights.files import load_backbone
from posebatch.models.weights.layouts import find_architecture, pose_keys
from posebatch.models.weights.published import PUBLISHED_POSES
from posebatch.models.weights.records import IMAGENET_MEAN, IMAGENET_STD

STAGES = (
    # expansion within a block, channels, blocks, stride of the first
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

SOME_SHAPES = {
    "conv1.conv.weight": (32, 3, 3, 3),
    "layer1.0.conv.0.conv.weight": (32, 1, 3, 3),
    "layer1.0.conv.1.conv.weight": (16, 32, 1, 1),
    "layer2.0.conv.0.conv.weight": (96, 16, 1, 1),
    "layer2.1.conv.1.conv.weight": (144, 1, 3, 3),
    "layer4.3.conv.2.bn.running_var": (64,),
    "layer6.0.conv.1.bn.bias": (576,),
    "layer7.0.conv.2.conv.weight": (320, 960, 1, 1),
    "conv2.conv.weight": (1280, 320, 1, 1),
    "conv2.bn.weight": (1280,),
    "deconv_layers.0.weight": (1280, 256, 4, 4),
    "deconv_layers.7.running_mean": (256,),
    "final_layer.weight": (17, 256, 1, 1),
}

State = dict[str, torch.Tensor]


def blocks() -> Iterator[tuple[str, int, int, int, int]]:
    """Name of each block, its channels at the input, within and at the output, and its stride."""
    channels_in = 32
    for number, (expansion, channels, repetitions, first_stride) in enumerate(STAGES, start=1):
        for repetition in range(repetitions):
            stride = first_stride if repetition == 0 else 1
            yield f"layer{number}.{repetition}", channels_in, expansion * channels_in, channels, stride
            channels_in = channels


def mmpose_shapes() -> dict[str, tuple[int, ...]]:
    """Shapes by mmpose's names without ``backbone.`` and ``head.``, in the order of its modules."""
    convolutions = {"conv1": (32, 3, 3, 3)}
    for name, channels_in, within, channels_out, _ in blocks():
        expansion = [(within, channels_in, 1, 1)] if within != channels_in else []
        for place, shape in enumerate([*expansion, (within, 1, 3, 3), (channels_out, within, 1, 1)]):
            convolutions[f"{name}.conv.{place}"] = shape
    convolutions["conv2"] = (1280, 320, 1, 1)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in convolutions.items():
        shapes |= {f"{name}.conv.weight": shape, **norm_shapes(f"{name}.bn", shape[0])}
    for index, channels_in in ((0, 1280), (3, 256), (6, 256)):
        shapes[f"deconv_layers.{index}.weight"] = (channels_in, 256, 4, 4)
        shapes |= norm_shapes(f"deconv_layers.{index + 1}", 256)
    return shapes | {"final_layer.weight": (17, 256, 1, 1), "final_layer.bias": (17,)}


def norm_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {
        **{f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")},
        f"{name}.num_batches_tracked": (),
    }


def normed(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    mean, var, weight, bias = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return functional.batch_norm(x, mean, var, weight, bias, eps=1e-5)


def conv_module(state: State, name: str, x: torch.Tensor, stride: int = 1, active: bool = True) -> torch.Tensor:
    weight = state[f"{name}.conv.weight"]
    groups = x.shape[1] // weight.shape[1]
    x = functional.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2, groups=groups)
    x = normed(state, f"{name}.bn", x)
    return x.clamp(0, 6) if active else x


def mmpose_heatmaps(state: State, x: torch.Tensor) -> torch.Tensor:
    """(n, 3, h, w) normalised -> (n, 17, h/4, w/4)."""
    x = conv_module(state, "conv1", x, stride=2)
    for name, channels_in, within, channels_out, stride in blocks():
        before, place = x, 0
        if within != channels_in:
            x = conv_module(state, f"{name}.conv.0", x)
            place = 1
        x = conv_module(state, f"{name}.conv.{place}", x, stride)
        x = conv_module(state, f"{name}.conv.{place + 1}", x, active=False)
        if stride == 1 and channels_in == channels_out:
            x = x + before
    x = conv_module(state, "conv2", x)
    for index in (0, 3, 6):
        x = functional.conv_transpose2d(x, state[f"deconv_layers.{index}.weight"], stride=2, padding=1)
        x = normed(state, f"deconv_layers.{index + 1}", x).relu()
    return functional.conv2d(x, state["final_layer.weight"], state["final_layer.bias"])


@pytest.fixture(scope="module")
def theirs() -> State:
    """Random tensors by mmpose's names, scaled so that activations do not vanish."""
    random = torch.Generator().manual_seed(0)

    def tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        if name.endswith("num_batches_tracked"):
            return torch.tensor(1)
        if name.endswith("running_var"):
            return 0.5 + torch.rand(shape, generator=random)
        if len(shape) == 4:
            fan_in = shape[0] * 4 if name.startswith("deconv") else shape[1] * shape[2] * shape[3]
            return torch.randn(shape, generator=random) * (2 / fan_in) ** 0.5
        around = 1.0 if name.endswith("weight") else 0.0
        return around + 0.2 * torch.randn(shape, generator=random)

    return {name: tensor(name, shape) for name, shape in mmpose_shapes().items()}


def test_reference_has_mmpose_names_and_shapes(theirs):
    assert len(theirs) == 52 * 6 + 3 * 6 + 2
    assert {name: tuple(theirs[name].shape) for name in SOME_SHAPES} == SOME_SHAPES


@pytest.mark.parametrize("version", [0, 1])
def test_pose_keys_map_every_tensor_of_mmpose(theirs, version: int):
    checkpoint = mmpose_checkpoint(theirs, version)["state_dict"]
    ours = {name: checkpoint[key] for key, name in pose_keys(checkpoint).items()}
    network = build_pose_network("mobilenet_v2_1280").state_dict()
    assert {name: tensor.shape for name, tensor in ours.items()} == {k: v.shape for k, v in network.items()}
    assert find_architecture({name: tuple(tensor.shape) for name, tensor in ours.items()}) == "mobilenet_v2_1280"


@pytest.mark.parametrize("foreign", ["layer1.1.conv.0.conv.weight", "layer2.0.conv.0.gn.weight", "conv3.bn.weight"])
def test_pose_keys_keep_the_names_of_unknown_tensors(theirs, foreign: str):
    checkpoint = mmpose_checkpoint({**theirs, foreign: torch.zeros(1)}, 1)["state_dict"]
    assert pose_keys(checkpoint)[f"backbone.{foreign}"] == foreign


@pytest.mark.parametrize("name", ["mmpose_mobilenetv2_256x192", "mmpose0_mobilenetv2_384x288"])
def test_heatmaps_equal_those_of_mmpose(theirs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    """On a small crop, with weights loaded by name, by path, and converted."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    monkeypatch.setenv("POSEBATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("POSEBATCH_WEIGHTS", str(mirror))
    torch.save(mmpose_checkpoint(theirs, 0 if name.startswith("mmpose0") else 1), mirror / "file.pth")
    pose = PUBLISHED_POSES[name]
    file = renamed_by_hash(pose.file, (mirror / "file.pth").read_bytes())
    path = (mirror / "file.pth").rename(mirror / file.file_name)
    monkeypatch.setitem(PUBLISHED_POSES, name, replace(pose, file=file, input_size_wh=(64, 96)))

    crops = 255 * torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    expected = mmpose_heatmaps(theirs, (crops / 255 - mean) / std)
    assert expected.std() > 0.1
    network = load_pose_network(name)
    assert (network.record.channel_order, network.record.grid_alignment) == ("RGB", "origin")
    torch.testing.assert_close(network.heatmaps(crops), expected, rtol=1e-3, atol=1e-3 * float(expected.std()))

    converted = tmp_path / "ours.safetensors"
    assert main(["models", "convert", str(path), str(converted)]) == 0
    for source in (path, converted):
        assert torch.equal(load_pose_network(str(source)).heatmaps(crops), network.heatmaps(crops))


@pytest.mark.parametrize("architecture", ["mobilenet_v2", "mobilenet_v2_1280"])
def test_load_backbone_reads_mmpose_mobilenet(theirs, tmp_path: Path, architecture: str):
    """MobileNetV2's last convolution is loaded only if the network has it."""
    path = tmp_path / "theirs.pth"
    torch.save(mmpose_checkpoint(theirs, 1), path)
    network = build_pose_network(architecture)
    head = network.deconv_layers[0].weight.clone()
    load_backbone(network, str(path))
    assert torch.equal(network.backbone[17].conv[2].weight, theirs["layer7.0.conv.2.conv.weight"])
    assert len(network.backbone) == (19 if architecture == "mobilenet_v2_1280" else 18)
    assert torch.equal(network.deconv_layers[0].weight, head)
    if architecture == "mobilenet_v2_1280":
        assert torch.equal(network.backbone[18][0].weight, theirs["conv2.conv.weight"])
