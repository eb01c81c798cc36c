"""SimpleBaseline on the wider MobileNetV2 with one-sided padding: what its layers do, on every engine."""

import importlib.util
from dataclasses import replace

import pytest
import torch
from torch import nn

from posebatch.core.errors import WeightsError
from posebatch.models.networks.engines import Placement, start_engine, start_quantized
from posebatch.models.networks.pose_network import load_pose_network
from posebatch.models.networks.pose_resnet import MobileNetShape, PoseMobileNet, RightBottomPadding, build_pose_network
from posebatch.models.networks.quantization import quantize_network
from posebatch.models.weights.files import save_weights
from posebatch.models.weights.names import EMBEDDED, resolve
from posebatch.training.warm_start import narrow_deconvolutions

ARCHITECTURE = "mobilenet_v2_w175_d128_centred"
SIZE_WH = (192, 256)
needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")
needs_nncf = pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="NNCF is not installed")


def lively(network):
    """Weights under which every layer passes something on."""
    random = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, generator=random)
    return network.eval()


def images(n, seed=1):
    coarse = torch.randn(n, 3, 8, 6, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=SIZE_WH[::-1], mode="bilinear")


@torch.no_grad()
def test_right_bottom_padding_centres_each_cell_on_an_odd_one():
    convolution = RightBottomPadding(nn.Conv2d(1, 1, 3, stride=2, padding=1, bias=False))
    convolution.weight.zero_()
    convolution.weight[0, 0, 1, 1] = 1  # passes on the cell on which it is centred
    cells = torch.arange(48.0).view(1, 1, 6, 8)
    assert torch.equal(convolution(cells), cells[:, :, 1::2, 1::2])


@torch.no_grad()
def test_centred_backbone_has_its_padding_in_the_last_strided_convolution_alone():
    plain, centred = PoseMobileNet(MobileNetShape()), PoseMobileNet(MobileNetShape(centred=True))
    assert [key for key, _ in plain.state_dict().items()] == [key for key, _ in centred.state_dict().items()]
    strided = [module for module in centred.backbone.modules() if getattr(module, "stride", 0) == (2, 2)]
    assert [isinstance(module, RightBottomPadding) for module in strided] == [False] * 4 + [True]


@pytest.mark.parametrize(
    "placement",
    [
        pytest.param(Placement("cpu", "fp32", "torch"), id="torch"),
        pytest.param(Placement("cpu", "fp32", "openvino"), id="openvino", marks=needs_openvino),
    ],
)
@torch.no_grad()
def test_engines_give_the_heatmaps_of_the_plain_network(placement):
    wanted = lively(build_pose_network(ARCHITECTURE))(images(2))
    (found,) = start_engine(lively(build_pose_network(ARCHITECTURE)), SIZE_WH, placement)(images(2))
    assert wanted.std() > 0
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()


@needs_openvino
@needs_nncf
@torch.no_grad()
def test_8_bit_network_gives_nearly_the_same_heatmaps():
    wanted = lively(build_pose_network(ARCHITECTURE))(images(2))
    batches = [images(1, seed) for seed in range(1, 5)]
    quantized = quantize_network(lively(build_pose_network(ARCHITECTURE)), batches, "made@0", "4 images")
    (found,) = start_quantized(quantized, SIZE_WH, Placement("cpu", "int8", "openvino"))(images(2))
    # random weights round worse than trained ones: .91 here, and .77 with padding on both sides
    assert torch.corrcoef(torch.stack([found.flatten(), wanted.flatten()]))[0, 1] > 0.85


def test_weight_file_names_width_and_padding_and_loads_strictly(tmp_path):
    record = replace(resolve("pose", EMBEDDED["pose"][0]), architecture=ARCHITECTURE, sha256="")
    path = tmp_path / "wide.safetensors"
    save_weights(path, record, build_pose_network(ARCHITECTURE).state_dict())
    assert load_pose_network(str(path)).record.architecture == ARCHITECTURE
    save_weights(path, replace(record, architecture="mobilenet_v2_d128"), build_pose_network(ARCHITECTURE).state_dict())
    with pytest.raises(WeightsError, match=f"weights of {ARCHITECTURE}, where mobilenet_v2_d128 is wanted"):
        load_pose_network(str(path))


@torch.no_grad()
def test_narrow_deconvolutions_knows_the_wider_backbone():
    shape = MobileNetShape(deconv_width=8, backbone_width=1.75, centred=True)
    wide, narrow = lively(PoseMobileNet(shape)), PoseMobileNet(replace(shape, deconv_width=4))
    narrow_deconvolutions(wide, [images(2)], narrow)
    wanted, found = wide(images(2, seed=3)), narrow(images(2, seed=3))
    assert (found - wanted).std() < 0.8 * wanted.std()
