"""The table of networks: figures are compared with counted ones, addresses and scores with torchvision's."""

import re
from pathlib import Path

import pytest
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from posebatch.core.presets import PRESETS
from posebatch.models.networks.pose_resnet import build_pose_network
from posebatch.models.networks.ssdlite import build_person_ssd
from posebatch.models.weights.cache import cached_path
from posebatch.models.weights.listing import list_models, models_table
from posebatch.models.weights.names import EMBEDDED, describe, known_names
from posebatch.models.weights.published import (
    EMBEDDED_DETECTOR_GFLOPS,
    EMBEDDED_DETECTOR_PARAMETERS,
    POSE_GFLOPS_256X192,
    POSE_PARAMETERS,
    PUBLISHED_POSES,
    TORCHVISION_BACKBONES,
    TORCHVISION_DETECTORS,
    pose_gflops,
)
from posebatch.models.weights.records import POSE_ARCHITECTURES
from posebatch.pose import network_speed


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSEBATCH_CACHE", str(tmp_path))


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("architecture", POSE_ARCHITECTURES)
def test_pose_gflops_and_parameters_equal_those_counted(architecture: str):
    with torch.device("meta"):
        network = build_pose_network(architecture).eval()
        crops = [torch.empty(1, 3, height, width) for width, height in ((192, 256), (288, 384))]
    assert POSE_PARAMETERS[architecture] == parameters(network)
    for crop in crops:
        with FlopCounterMode(display=False) as counter:
            network(crop)
        size_wh = (crop.shape[3], crop.shape[2])
        assert pose_gflops(architecture, size_wh) == pytest.approx(counter.get_total_flops() / 1e9, rel=1e-3)


def test_every_architecture_has_parameters_and_gflops():
    assert POSE_PARAMETERS.keys() == POSE_GFLOPS_256X192.keys() == {*POSE_ARCHITECTURES}


def test_detector_gflops_and_parameters_equal_those_counted():
    network = build_person_ssd().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.head(list(network.backbone(torch.zeros(1, 3, 320, 320)).values()))
    assert pytest.approx(counter.get_total_flops() / 1e9, abs=1e-3) == EMBEDDED_DETECTOR_GFLOPS
    assert parameters(network) == EMBEDDED_DETECTOR_PARAMETERS


def test_detector_figures_are_those_of_torchvision():
    for name, detector in TORCHVISION_DETECTORS.items():
        weights = torchvision.models.get_model_weights(name).DEFAULT
        assert (detector.file.url, detector.parameters) == (weights.url, weights.meta["num_params"]), name
        assert detector.box_ap == pytest.approx(weights.meta["_metrics"]["COCO-val2017"]["box_map"] / 100), name
        assert detector.gflops == pytest.approx(2 * weights.meta["_ops"]), name


def test_backbone_addresses_are_those_of_torchvision():
    for name, file in TORCHVISION_BACKBONES.items():
        assert file.url == torchvision.models.get_model_weights(name).IMAGENET1K_V1.url, name


def test_published_pose_names_agree_with_files():
    for name, pose in PUBLISHED_POSES.items():
        backbone, height, width = re.fullmatch(r"[a-z0-9]+_([a-z0-9]+)_(\d+)x(\d+)(?:_\w+)?", name).groups()
        architecture = "mobilenet_v2_1280" if backbone == "mobilenetv2" else backbone
        assert (pose.architecture, pose.input_size_wh) == (architecture, (int(width), int(height))), name
        in_file_name = rf"{backbone.replace('resnet', 'res(net_)?')}_.*{height}x{width}"
        assert re.search(in_file_name, pose.file.file_name), name
        if pose.file.url:
            assert pose.file.url.endswith(f"/{pose.file.file_name}"), name
            assert ("/v1/" in pose.file.url) == name.startswith("mmpose_"), name
            assert len(pose.file.sha256_prefix) == 8, name
        for variant in ("dark", "fp16"):
            assert (variant in name) == (variant in pose.file.file_name), name


def test_published_pose_records_have_channel_order_and_plausible_ap():
    for name, pose in PUBLISHED_POSES.items():
        record = describe("pose", name)
        assert record.channel_order == ("BGR" if name.startswith("paper") else "RGB"), name
        low, high = (0.64, 0.68) if pose.architecture.startswith("mobilenet") else (0.7, 0.76)
        assert low < record.accuracy["AP"] < high, name


def test_presets_name_registered_networks():
    for detector, pose in PRESETS.values():
        assert detector in known_names("detector")
        assert pose in known_names("pose")
    assert PRESETS["embedded"] == (EMBEDDED["detector"][0], EMBEDDED["pose"][0])


def test_list_models_lists_every_name_once():
    rows = list_models()
    assert [row.name for row in rows] == [*known_names("pose"), *known_names("detector")]
    for row in rows:
        assert row.licence
        assert row.source
        assert "measured on" in row.accuracy
        assert (row.ap_published is None) == (row.weights == "package")


def test_list_models_marks_cached_weights():
    name = "mmpose_resnet50_256x192"
    lines = {row.name: row.weights for row in list_models()}
    assert (lines[name], lines["paper_resnet50_256x192"]) == ("download", "by hand")
    path = cached_path(PUBLISHED_POSES[name].file)
    path.parent.mkdir()
    path.write_bytes(b"")
    assert {row.name: row.weights for row in list_models()}[name] == "cached"


def test_models_table_has_one_line_for_each_network():
    rows = list_models()
    without, with_speed = models_table(rows, {}), models_table(rows, {rows[0].name: "12.3"})
    for row in rows:
        (line,) = [line for line in without.splitlines() if line.startswith(f"{row.name} ")]
        assert row.weights in line
    assert "crops/s" not in without
    assert re.search(rf"{rows[0].name} .* 12\.3$", with_speed, re.MULTILINE)
    assert max(map(len, without.splitlines()[: len(rows) + 3])) <= 120


def test_measure_speeds_measures_each_size_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(network_speed, "_SECONDS", 0.0)
    rows = [row for row in list_models() if row.name in (*EMBEDDED["pose"], *EMBEDDED["detector"])]
    small = {"ssdlite320_mobilenet_v3_large"}
    rows += [row for row in list_models() if row.name in small] * 2
    speeds = dict(network_speed.measure_speeds(rows))
    assert speeds.keys() == {row.name for row in rows}
    for row in rows:
        assert re.fullmatch(r"~\d+\.\d" if row.name in small else r"\d+\.\d", speeds[row.name])
    assert capsys.readouterr().err.count("measuring") == 4
