"""The choice of an engine, and the equality of every engine with torch in fp32."""

import importlib.util
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from posebatch.core.errors import SettingsError
from posebatch.models.networks.engines import DTYPES, PLAIN, Placement, choose_placement, start_engine

SIZE_WH = (48, 32)
WITHOUT_OPENVINO = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")
ON_CUDA = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
ENGINES = [
    pytest.param(Placement("cpu", "fp32", "torch"), 1e-5, id="torch"),
    pytest.param(Placement("cpu", "bf16", "torch"), 0.05, id="torch-bf16"),
    pytest.param(Placement("cpu", "fp32", "openvino"), 1e-5, id="openvino", marks=WITHOUT_OPENVINO),
    pytest.param(Placement("cpu", "bf16", "openvino"), 0.05, id="openvino-bf16", marks=WITHOUT_OPENVINO),
    pytest.param(Placement("cuda", "fp32"), 1e-2, id="cuda", marks=ON_CUDA),
    pytest.param(Placement("cuda", "bf16"), 0.05, id="cuda-bf16", marks=ON_CUDA),
    pytest.param(Placement("cuda", "fp16"), 0.05, id="cuda-fp16", marks=ON_CUDA),
]


class TwoHeads(nn.Module):
    """A small network with a batch norm to fold and two outputs."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.maps = nn.Conv2d(8, 5, 1)

    def forward(self, x):
        features = self.stem(x)
        return self.maps(features), features.mean(dim=(2, 3))


def network():
    torch.manual_seed(0)
    two_heads = TwoHeads().eval()
    two_heads.stem[1].running_mean.normal_()
    two_heads.stem[1].running_var.uniform_(0.5, 2)
    return two_heads


def images(n, seed=0):
    return torch.randn(n, 3, SIZE_WH[1], SIZE_WH[0], generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("placement", "tolerance"), ENGINES)
def test_engine_computes_the_outputs_of_the_network(placement, tolerance):
    engine = start_engine(network(), SIZE_WH, placement)
    with torch.inference_mode():
        for n in (1, 3, engine.batch_size):
            for output, expected in zip(engine(images(n)), network()(images(n)), strict=True):
                assert output.dtype == torch.float32
                torch.testing.assert_close(output.cpu(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(("placement", "tolerance"), ENGINES)
def test_engine_keeps_results_when_it_runs_again(placement, tolerance):
    engine = start_engine(network(), SIZE_WH, placement)
    first = engine(images(2))
    kept = [output.clone() for output in first]
    engine(images(2, seed=1))
    assert all(torch.equal(output, copy) for output, copy in zip(first, kept, strict=True))


@pytest.mark.parametrize(("placement", "tolerance"), ENGINES)
def test_engine_outputs_do_not_depend_on_other_images(placement, tolerance):
    engine = start_engine(network(), SIZE_WH, placement)
    together = engine(images(4))
    beside_others = engine(torch.cat([images(4)[:1], images(3, seed=1)]))
    assert all(torch.equal(output[0], same[0]) for output, same in zip(together, beside_others, strict=True))


def test_engine_refuses_more_images_than_a_batch():
    engine = start_engine(network(), SIZE_WH, Placement(batch_size=2))
    with pytest.raises(ValueError, match="batch of 3, but the batch size is 2"):
        engine(images(3))


@pytest.fixture
def machine(monkeypatch):
    """A function that sets the devices and libraries of this machine."""

    def has(cuda=False, amx=False, openvino=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        spec = SimpleNamespace() if openvino else None
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "openvino" else None)

    return has


@pytest.mark.parametrize(
    ("has", "settings", "placement"),
    [
        ({}, {}, "cpu fp32 torch"),
        ({"openvino": True}, {}, "cpu fp32 openvino"),
        ({"amx": True}, {}, "cpu bf16 torch"),
        ({"amx": True, "openvino": True}, {}, "cpu bf16 openvino"),
        ({"amx": True, "openvino": True}, {"precision": "fp32"}, "cpu fp32 openvino"),
        ({"amx": True, "openvino": True}, {"engine": "torch"}, "cpu bf16 torch"),
        ({"openvino": True}, {"precision": "fp16"}, "cpu fp16 torch"),
        ({"openvino": True}, {"precision": "int8"}, "cpu int8 openvino"),
        ({"cuda": True, "openvino": True}, {}, "cuda bf16 torch"),
        ({"cuda": True, "openvino": True}, {"device": "cpu"}, "cpu fp32 openvino"),
        ({"cuda": True}, {"precision": "fp32"}, "cuda fp32 torch"),
    ],
)
def test_choose_placement_selects_the_fastest(machine, has, settings, placement):
    machine(**has)
    assert str(choose_placement(**settings)) == placement


@pytest.mark.parametrize(
    ("has", "settings", "message"),
    [
        ({}, {"device": "cuda"}, "--device cuda: torch sees no CUDA device"),
        ({}, {"engine": "openvino"}, "--engine openvino: OpenVINO is not installed here; pip install 'posebatch"),
        ({}, {"precision": "int8"}, "--precision int8: OpenVINO is not installed here"),
        ({"openvino": True}, {"engine": "torch", "precision": "int8"}, "int8 needs --engine openvino or auto"),
        ({"openvino": True}, {"engine": "openvino", "precision": "fp16"}, "in fp32, bf16, int8"),
        ({"cuda": True, "openvino": True}, {"engine": "openvino"}, "--engine openvino runs on the CPU"),
        ({"cuda": True, "openvino": True}, {"precision": "int8"}, "--precision int8 runs on the CPU"),
    ],
)
def test_choose_placement_refuses_unsupported_combinations(machine, has, settings, message):
    machine(**has)
    with pytest.raises(SettingsError, match=message):
        choose_placement(**settings)


def test_plain_placement_is_torch_in_fp32_on_the_cpu():
    assert (str(PLAIN), DTYPES[PLAIN.precision]) == ("cpu fp32 torch", torch.float32)


SIGNAL_AFTER_USE = """
import gc, signal
from posebatch.core.settings import EstimatorSettings
from posebatch.pose.estimator import PoseEstimator
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
estimator = PoseEstimator.load(EstimatorSettings(), engine="openvino")
del estimator
gc.collect()
signal.raise_signal(signal.SIGTERM)
"""


@WITHOUT_OPENVINO
def test_signal_after_the_last_engine_is_gone_is_handled():
    """OpenVINO's plugin leaves an alternate signal stack that it frees: see `openvino_core`."""
    done = subprocess.run([sys.executable, "-c", SIGNAL_AFTER_USE], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
