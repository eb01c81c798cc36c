"""8-bit networks: the files in the package, files of users, errors for missing ones, and the job that makes them."""

import importlib.util
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.evaluation_factories import dataset, persons
from support.training_factories import drawn_persons, write_coco

from posebatch.core.errors import InputError, SettingsError, WeightsError
from posebatch.core.fingerprints import data_fingerprint
from posebatch.core.settings import settings_from
from posebatch.models.networks.engines import PLAIN, Placement
from posebatch.models.networks.person_detector import DetectorSettings, load_detector
from posebatch.models.networks.pose_network import load_pose_network
from posebatch.models.weights.names import EMBEDDED, resolve, weight_file
from posebatch.models.weights.quantized import (
    QuantizedNetwork,
    QuantizedRecord,
    load_quantized,
    quantized_file,
    quantized_identity,
    save_quantized,
)
from posebatch.pose.crops import crop_regions
from posebatch.pose.pixels import RgbPixels
from posebatch.run.preparation import prepare
from posebatch.training.int8_calibration import quantize_detector, quantize_pose, some_images

POSE, DETECTOR = EMBEDDED["pose"][0], EMBEDDED["detector"][0]
INT8 = Placement("cpu", "int8", "openvino")
needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")
needs_nncf = pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="NNCF is not installed")


@pytest.fixture
def mine(tmp_path):
    """A weight file of a user, without an 8-bit version."""
    shutil.copy(weight_file("pose", POSE), tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


def crops_of_drawn_persons():
    """Crops (4, 3, 256, 192) of drawn persons."""
    crops = []
    for picture, (left, top, width, height), _ in drawn_persons():
        regions = crop_regions(np.array([[left, top, left + width, top + height]]), 192 / 256)
        crops.append(RgbPixels(torch.from_numpy(picture[None].copy())).crops([0], regions, (192, 256), "edges"))
    return torch.cat(crops)


def quantized_from(original, graph=b"<net/>", weights=b"\x01\x02"):
    return QuantizedNetwork(QuantizedRecord(original, "3 images of mine", "by hand", {"AP": 0.5}), graph, weights)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in EMBEDDED.items() for name in names])
def test_package_has_all_networks_in_8_bits(kind, name):
    network = load_quantized(kind, name)
    assert network.record.original == resolve(kind, name).identity
    assert network.record.accuracy["measured on"]
    assert network.graph.startswith(b"<?xml")
    assert quantized_identity(kind, name).startswith(f"{name}@")
    assert quantized_identity(kind, name) != resolve(kind, name).identity


@pytest.mark.parametrize("weights", [b"", b"\x01\x02\xff"])
def test_load_quantized_returns_a_saved_network(mine, weights):
    network = quantized_from(resolve("pose", str(mine)).identity, weights=weights)
    save_quantized(quantized_file("pose", str(mine)), network)
    assert load_quantized("pose", str(mine)) == network
    assert quantized_file("pose", str(mine)) == mine.with_name("mine.int8.safetensors")


def test_load_quantized_names_the_command_for_a_missing_file(mine):
    with pytest.raises(WeightsError, match=r"no 8-bit version of these weights .*jobs/quantize.py --pose .*mine"):
        load_quantized("pose", str(mine))


def test_load_quantized_refuses_a_file_of_other_weights(mine):
    save_quantized(quantized_file("pose", str(mine)), quantized_from("other@123"))
    with pytest.raises(WeightsError, match=r"was made from other@123, not from .*make it again"):
        load_quantized("pose", str(mine))


def test_load_quantized_refuses_a_file_without_a_record(mine):
    shutil.copy(mine, quantized_file("pose", str(mine)))
    with pytest.raises(WeightsError, match="no record of a quantized network in its header"):
        load_quantized("pose", str(mine))


@needs_openvino
def test_pose_network_in_8_bits_is_close_to_fp32():
    crops = crops_of_drawn_persons()
    exact, rounded = load_pose_network(POSE).heatmaps(crops), load_pose_network(POSE, INT8).heatmaps(crops)
    assert (rounded - exact).abs().max() < 0.2 * exact.abs().max()
    assert not torch.equal(rounded, exact)


@needs_openvino
def test_detector_in_8_bits_is_close_to_fp32():
    picture, _, _ = drawn_persons()[0]
    frames = RgbPixels(torch.from_numpy(picture[None].copy()))
    [exact], [rounded] = (load_detector(DETECTOR, DetectorSettings(placement=p)).detect(frames) for p in (PLAIN, INT8))
    assert len(exact) == len(rounded) > 0
    assert abs(exact.bbox_xyxy - rounded.bbox_xyxy).max() < 0.1 * picture.shape[0]


def test_fingerprint_changes_with_8_bits(tmp_path):
    video = tmp_path / "clip.mp4"
    video.write_bytes(b"x")
    full, int8 = (
        prepare([str(video)], str(tmp_path / "out"), settings_from({"precision": precision})).context
        for precision in ("fp32", "int8")
    )
    assert int8.detector == quantized_identity("detector", DETECTOR)
    assert int8.pose == quantized_identity("pose", POSE)
    assert int8.data_fingerprint != full.data_fingerprint
    assert data_fingerprint(full.settings, int8.detector, int8.pose) != full.data_fingerprint


def test_prepare_refuses_weights_without_an_8_bit_version(tmp_path, mine):
    with pytest.raises(WeightsError, match="no 8-bit version"):
        prepare(["clip.mp4"], str(tmp_path / "out"), settings_from({"precision": "int8", "pose": str(mine)}))


@needs_nncf
def test_quantize_pose_refuses_data_without_persons():
    with pytest.raises(InputError, match="nobody is labelled"):
        quantize_pose(POSE, dataset(persons()), None)


def test_quantize_detector_refuses_torchvision_detectors(monkeypatch):
    record = replace(resolve("detector", DETECTOR), architecture="fcos_resnet50_fpn")
    monkeypatch.setattr("posebatch.training.int8_calibration.load_weights", lambda kind, name: (record, {}))
    with pytest.raises(SettingsError, match="only detectors of the kinds ssdlite"):
        quantize_detector("fcos", dataset(persons()), None)


@pytest.mark.parametrize("count", [0, 1, 3, 9])
def test_some_images_is_deterministic(count):
    whole = dataset(*[persons() for _ in range(5)])
    selected = some_images(whole, count)
    assert len(selected.images) == min(count, 5)
    assert selected == some_images(whole, count)


@pytest.fixture(scope="module")
def job():
    spec = importlib.util.spec_from_file_location("quantize", Path(__file__).parents[2] / "jobs/quantize.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def walkers(tmp_path):
    """Flags of the job for labelled pictures."""
    labels, images = write_coco(tmp_path)
    return ["--data", str(labels), "--images", str(images), "--validate", str(labels), "--validate-images", str(images)]


@pytest.mark.slow
@needs_nncf
def test_quantize_job_writes_a_usable_network(job, mine, walkers, capsys):
    assert job.main(["--pose", str(mine), "--count", "2", *walkers]) == 0
    assert "mine.int8.safetensors" in (output := capsys.readouterr().out)
    assert "AP " in output
    assert load_quantized("pose", str(mine)).record.calibration == "2 persons of labels.json"
    crops = crops_of_drawn_persons()
    exact, rounded = load_pose_network(str(mine)).heatmaps(crops), load_pose_network(str(mine), INT8).heatmaps(crops)
    assert np.corrcoef(rounded.ravel(), exact.ravel())[0, 1] > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to quantize"),
        (["--pose", POSE, "--count", "0"], "--count must be at least 1"),
        (["--pose", "nobody"], "no pose is called 'nobody'"),
        (["--detector", "nobody"], "no detector is called 'nobody'"),
    ],
)
def test_quantize_job_refuses_wrong_arguments(job, arguments, message, walkers, capsys):
    assert job.main([*arguments, *walkers]) == 2
    assert message in capsys.readouterr().err
