"""8-bit networks: the files of the package, files of one's own, and what is said when there is none."""

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
    """A weight file of one's own, with nothing beside it."""
    shutil.copy(weight_file("pose", POSE), tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


def walkers_cut_out():
    """Drawn persons as a pose network sees them: (4, 3, 256, 192)."""
    crops = []
    for picture, (left, top, width, height), _ in drawn_persons():
        regions = crop_regions(np.array([[left, top, left + width, top + height]]), 192 / 256)
        crops.append(RgbPixels(torch.from_numpy(picture[None].copy())).crops([0], regions, (192, 256), "edges"))
    return torch.cat(crops)


def network_of(original, graph=b"<net/>", weights=b"\x01\x02"):
    return QuantizedNetwork(QuantizedRecord(original, "3 images of mine", "by hand", {"AP": 0.5}), graph, weights)


@pytest.mark.parametrize(("kind", "name"), [("pose", POSE), ("detector", DETECTOR)])
def test_the_package_has_both_networks_in_8_bits(kind, name):
    network = load_quantized(kind, name)
    assert network.record.original == resolve(kind, name).identity
    assert network.record.accuracy["measured on"]
    assert network.graph.startswith(b"<?xml")
    assert quantized_identity(kind, name).startswith(f"{name}@")
    assert quantized_identity(kind, name) != resolve(kind, name).identity


@pytest.mark.parametrize("weights", [b"", b"\x01\x02\xff"])
def test_what_is_written_is_read_back(mine, weights):
    network = network_of(resolve("pose", str(mine)).identity, weights=weights)
    save_quantized(quantized_file("pose", str(mine)), network)
    assert load_quantized("pose", str(mine)) == network
    assert quantized_file("pose", str(mine)) == mine.with_name("mine.int8.safetensors")


def test_without_a_file_it_is_said_how_to_make_one(mine):
    with pytest.raises(WeightsError, match=r"no 8-bit version of these weights .*jobs/quantize.py --pose .*mine"):
        load_quantized("pose", str(mine))


def test_a_file_of_other_weights_is_refused(mine):
    save_quantized(quantized_file("pose", str(mine)), network_of("other@123"))
    with pytest.raises(WeightsError, match=r"was made from other@123, not from .*make it again"):
        load_quantized("pose", str(mine))


def test_a_file_without_a_record_is_refused(mine):
    shutil.copy(mine, quantized_file("pose", str(mine)))
    with pytest.raises(WeightsError, match="no record of a quantized network in its header"):
        load_quantized("pose", str(mine))


@needs_openvino
def test_poses_in_8_bits_are_about_those_in_32():
    crops = walkers_cut_out()
    exact, rounded = load_pose_network(POSE).heatmaps(crops), load_pose_network(POSE, INT8).heatmaps(crops)
    assert (rounded - exact).abs().max() < 0.2 * exact.abs().max()
    assert not torch.equal(rounded, exact)


@needs_openvino
def test_boxes_in_8_bits_are_about_those_in_32():
    picture, _, _ = drawn_persons()[0]
    frames = RgbPixels(torch.from_numpy(picture[None].copy()))
    [exact], [rounded] = (load_detector(DETECTOR, DetectorSettings(placement=p)).detect(frames) for p in (PLAIN, INT8))
    assert len(exact) == len(rounded) > 0
    assert abs(exact.bbox_xyxy - rounded.bbox_xyxy).max() < 0.1 * picture.shape[0]


def test_rows_in_8_bits_are_other_rows(tmp_path):
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


def test_weights_without_an_8_bit_version_are_refused_before_any_work(tmp_path, mine):
    with pytest.raises(WeightsError, match="no 8-bit version"):
        prepare(["clip.mp4"], str(tmp_path / "out"), settings_from({"precision": "int8", "pose": str(mine)}))


@needs_nncf
def test_quantizing_needs_somebody_to_look_at():
    with pytest.raises(InputError, match="nobody is labelled"):
        quantize_pose(POSE, dataset(persons()), None)


def test_torchvisions_detectors_are_not_quantized(monkeypatch):
    record = replace(resolve("detector", DETECTOR), architecture="fcos_resnet50_fpn")
    monkeypatch.setattr("posebatch.training.int8_calibration.load_weights", lambda kind, name: (record, {}))
    with pytest.raises(SettingsError, match="only detectors of the kinds ssdlite"):
        quantize_detector("fcos", dataset(persons()), None)


@pytest.mark.parametrize("count", [0, 1, 3, 9])
def test_some_images_are_always_the_same(count):
    everything = dataset(*[persons() for _ in range(5)])
    some = some_images(everything, count)
    assert len(some.images) == min(count, 5)
    assert some == some_images(everything, count)


@pytest.fixture(scope="module")
def job():
    spec = importlib.util.spec_from_file_location("quantize", Path(__file__).parents[2] / "jobs/quantize.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def walkers(tmp_path):
    """Flags for labelled pictures."""
    labels, images = write_coco(tmp_path)
    return ["--data", str(labels), "--images", str(images), "--validate", str(labels), "--validate-images", str(images)]


@needs_nncf
def test_the_job_leaves_a_network_that_can_be_used(job, mine, walkers, capsys):
    assert job.main(["--pose", str(mine), "--count", "2", *walkers]) == 0
    assert "mine.int8.safetensors" in (said := capsys.readouterr().out)
    assert "AP " in said
    assert load_quantized("pose", str(mine)).record.calibration == "2 persons of labels.json"
    crops = walkers_cut_out()
    exact, rounded = load_pose_network(str(mine)).heatmaps(crops), load_pose_network(str(mine), INT8).heatmaps(crops)
    assert np.corrcoef(rounded.ravel(), exact.ravel())[0, 1] > 0.9


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to quantize"),
        (["--pose", POSE, "--count", "0"], "--count must be at least 1"),
        (["--pose", "nobody"], "no pose is called 'nobody'"),
        (["--detector", "nobody"], "no detector is called 'nobody'"),
    ],
)
def test_what_cannot_be_done_is_said(job, arguments, said, walkers, capsys):
    assert job.main([*arguments, *walkers]) == 2
    assert said in capsys.readouterr().err
