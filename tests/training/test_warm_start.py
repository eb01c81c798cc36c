"""Warm starts from other networks, and the weight files of results."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.training_factories import write_persons, write_scenes
from torch import nn

from posebatch.core.errors import InputError, TrainingError, WeightsError
from posebatch.core.presets import PRESETS
from posebatch.models.networks.person_detector import DetectorSettings, load_detector
from posebatch.models.networks.pose_network import load_pose_network
from posebatch.models.networks.pose_resnet import MobileNetShape, PoseMobileNet, build_pose_network
from posebatch.models.networks.preparation import fold_batch_norms, unfold_batch_norms
from posebatch.models.networks.ssdlite import build_person_ssd
from posebatch.models.weights.files import load_into, load_weights, save_weights
from posebatch.models.weights.names import EMBEDDED, resolve
from posebatch.pose.pixels import RgbPixels
from posebatch.training.detector_task import DetectorNetwork, DetectorTaskSettings
from posebatch.training.loop import LoopSettings
from posebatch.training.pose_task import PoseTaskSettings
from posebatch.training.recipes import DetectorRecipe, PoseRecipe
from posebatch.training.warm_start import narrow_deconvolutions, widen_detector

POSE, DETECTOR = PRESETS["fast"][1], EMBEDDED["detector"][0]
SIZE = (64, 96)


@pytest.fixture(scope="module")
def persons(tmp_path_factory) -> Path:
    return write_persons(tmp_path_factory.mktemp("persons") / "persons.parquet")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "scenes.parquet")


def pose_recipe(data, **changed):
    plain = {"images": None, "start": POSE, "backbone": None, "architecture": resolve("pose", POSE).architecture,
             "input_size_wh": SIZE, "loop": LoopSettings(steps=1)}  # fmt: skip
    return PoseRecipe(name="mine", data=data, **{**plain, **changed})


def detector_recipe(data, **changed):
    plain = {"images": None, "start": DETECTOR, "architecture": resolve("detector", DETECTOR).architecture,
             "loop": LoopSettings(steps=1)}  # fmt: skip
    return DetectorRecipe(name="mine", data=data, **{**plain, **changed})


def randomize(network, seed=0):
    """Draw random weights and batch norm statistics; returns the network in eval mode."""
    random = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.weight, 0.5, 1.5), (module.bias, -0.2, 0.4),
                                      (module.running_mean, -0.2, 0.2), (module.running_var, 0.5, 2.0)):  # fmt: skip
                tensor.data.copy_(torch.rand(tensor.shape, generator=random) * (high - low) + low)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, generator=random)
    return network.eval()


def images(n, width, height, seed=1):
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(seed))


# From other networks


@torch.no_grad()
def test_widen_detector_keeps_the_output():
    plain, wide = (
        randomize(build_person_ssd("ssdlite_mobilenet_v2")),
        randomize(build_person_ssd("ssdlite_mobilenet_v2_fpn")),
    )
    widen_detector(plain, wide)
    for kept, output in zip(DetectorNetwork(plain)(images(1, 320, 320)), DetectorNetwork(wide)(images(1, 320, 320)),
                          strict=True):  # fmt: skip
        assert kept.std() > 0.1
        assert torch.allclose(output, kept, rtol=1e-4, atol=1e-5)


def test_widen_detector_leaves_new_layers_learnable():
    plain, wide = (
        randomize(build_person_ssd("ssdlite_mobilenet_v2")),
        build_person_ssd("ssdlite_mobilenet_v2_fpn").eval(),
    )
    widen_detector(plain, wide)
    logits, _ = DetectorNetwork(wide)(images(1, 320, 320))
    logits.square().sum().backward()
    readers = [module[0][0].weight.grad for module in list(wide.head.classification_head.module_list)[:2]]
    assert any(grad is not None and grad.any() for grad in readers)


@torch.no_grad()
def test_narrow_deconvolutions_drops_copied_channels_without_loss():
    wide, narrow = (
        randomize(PoseMobileNet(MobileNetShape(deconv_width=8))),
        PoseMobileNet(MobileNetShape(deconv_width=4)),
    )
    for index in (0, 3, 6):
        deconv, norm = wide.deconv_layers[index], wide.deconv_layers[index + 1]
        deconv.weight[:, 4:] = deconv.weight[:, :4]
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor[4:] = tensor[:4]
    narrow_deconvolutions(wide, [images(4, 64, 64), images(4, 64, 64, seed=2)], narrow)
    expected, output = wide(images(2, 64, 64, seed=3)), narrow(images(2, 64, 64, seed=3))
    assert expected.std() > 0.1
    assert (output - expected).abs().max() < 0.02 * expected.std()


@torch.no_grad()
def test_narrow_deconvolutions_approximates_dropped_channels():
    wide, narrow = (
        randomize(PoseMobileNet(MobileNetShape(deconv_width=8))),
        PoseMobileNet(MobileNetShape(deconv_width=4)),
    )
    narrow_deconvolutions(wide, [images(4, 64, 64)], narrow)
    expected, output = wide(images(2, 64, 64, seed=3)), narrow(images(2, 64, 64, seed=3))
    assert (output - expected).std() < 0.7 * expected.std()


@pytest.mark.parametrize(
    ("build", "size", "besides"),
    [
        (lambda: PoseMobileNet(MobileNetShape(deconv_width=8)), 64, ()),
        (lambda: PoseMobileNet(MobileNetShape(deconv_width=8, centred=True)), 64, ("deconv_layers",)),
        (lambda: build_pose_network("resnet18"), 64, ("deconv_layers",)),
        (lambda: DetectorNetwork(build_person_ssd("ssdlite_mobilenet_v2_fpn")), 320, ()),
    ],
)
@torch.no_grad()
def test_unfold_batch_norms_keeps_the_output(build, size, besides):
    network = randomize(build())
    folded = copy.deepcopy(network)
    fold_batch_norms(folded, besides)
    unfolded = build().eval()
    load_into(unfolded, unfold_batch_norms(build(), folded.state_dict()), "unfolded")
    for expected, output in zip(
        flat(network(images(1, size, size))), flat(unfolded(images(1, size, size))), strict=True
    ):
        assert torch.allclose(output, expected, rtol=1e-3, atol=1e-3 * expected.std().item())


def test_fold_batch_norms_leaves_the_new_biases_to_learn():
    network = PoseMobileNet(MobileNetShape(deconv_width=8)).eval()
    network.backbone[0].requires_grad_(False)
    fold_batch_norms(network)
    assert not network.backbone[0][0].bias.requires_grad
    assert network.backbone[1].conv[0][0].bias.requires_grad
    assert network.deconv_layers[0].bias.requires_grad


def flat(output):
    return output if isinstance(output, tuple) else (output,)


# Results


@torch.no_grad()
def test_pose_recipe_finish_writes_the_averaged_network(persons, tmp_path):
    recipe = pose_recipe(persons, licence="ours")
    network = recipe.prepare("cpu").network
    history = [{"step": 1, "loss": 1.0, "AP": 0.12345, "AR": 0.5}, {"step": 2, "loss": 1.0}]
    record = replace(recipe, validation=Path("some/test.parquet")).finish(
        network.state_dict(), history, tmp_path / "mine.safetensors"
    )
    assert record.accuracy == {"AP": 0.123, "AR": 0.5, "measured on": "test.parquet"}
    assert (record.licence, record.source) == ("ours", f"network of {POSE}")
    assert json.loads(record.training)["data"] == "persons.parquet"
    ready = load_pose_network(str(tmp_path / "mine.safetensors"))
    assert ready.record == record
    pixels = torch.rand(2, 3, SIZE[1], SIZE[0], generator=torch.Generator().manual_seed(0)) * 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (record.mean, record.std))
    expected = network((pixels / 255 - mean) / std)
    assert torch.allclose(ready.heatmaps(pixels), expected, atol=0.02 * expected.abs().max().item())


@torch.no_grad()
def test_detector_recipe_finish_writes_the_averaged_network(persons, scenes, tmp_path):
    recipe = detector_recipe(scenes, persons=persons, persons_sources=("drawn",), repeat=2)
    task = recipe.prepare("cpu")
    record = recipe.finish(task.network.state_dict(), [{"step": 1, "loss": 1.0}], tmp_path / "mine.safetensors")
    assert record.accuracy == {}
    assert json.loads(record.training)["data"] == "2 x scenes.parquet + persons.parquet drawn"
    settings = DetectorSettings(bbox_thr=0.02)
    frames = (torch.rand(1, 30, 40, 3, generator=torch.Generator().manual_seed(0)) * 255).byte()
    frames = frames.repeat_interleave(8, 1).repeat_interleave(8, 2)
    [expected] = load_detector(DETECTOR, settings).detect(RgbPixels(frames))
    [detected] = load_detector(str(tmp_path / "mine.safetensors"), settings).detect(RgbPixels(frames))
    assert len(detected) == len(expected) > 0
    assert detected.scores == pytest.approx(expected.scores, abs=0.02)


def test_pose_recipe_draws_random_weights_from_its_seed(persons):
    fresh = {"start": None, "architecture": "mobilenet_v2_d128", "task": PoseTaskSettings(batch_norms="all")}
    first, same, different = (
        pose_recipe(persons, **fresh, loop=LoopSettings(steps=1, seed=seed)).prepare("cpu").network.state_dict()
        for seed in (0, 0, 1)
    )
    assert torch.equal(first["backbone.0.0.weight"], same["backbone.0.0.weight"])
    assert not torch.equal(first["backbone.0.0.weight"], different["backbone.0.0.weight"])


def test_pose_recipe_takes_a_backbone_without_its_head(persons):
    unfolded = PoseTaskSettings(batch_norms="all")
    recipe = pose_recipe(persons, start=None, backbone=POSE, task=unfolded)
    network = recipe.prepare("cpu").network
    _, state = load_weights("pose", POSE)
    assert torch.equal(network.state_dict()["backbone.0.0.weight"], state["backbone.0.0.weight"].float())
    assert not torch.equal(network.state_dict()["final_layer.weight"], state["final_layer.weight"].float())


def test_pose_recipe_narrows_a_wide_start(persons, tmp_path, monkeypatch):
    monkeypatch.setattr("posebatch.training.recipes._CALIBRATION_BATCHES", 1)
    start = tmp_path / "wide.safetensors"
    record = replace(resolve("pose", POSE), architecture="mobilenet_v2", sha256="")
    save_weights(start, record, build_pose_network("mobilenet_v2").state_dict())
    task = pose_recipe(persons, start=str(start), architecture="mobilenet_v2_d128").prepare("cpu")
    assert task.network.final_layer.in_channels == 128


@pytest.mark.parametrize(
    ("trained", "architecture"),
    [
        ("mobilenet_v2_d128", "resnet18"),
        ("mobilenet_v2_d128", "mobilenet_v2"),
        ("mobilenet_v2", "mobilenet_v2_1280"),
        ("mobilenet_v2_1280", "mobilenet_v2_d128"),
    ],
)
def test_pose_recipe_refuses_a_start_of_another_architecture(persons, tmp_path, trained, architecture):
    start = tmp_path / "other.safetensors"
    record = replace(resolve("pose", POSE), architecture=trained, sha256="")
    save_weights(start, record, build_pose_network(trained).state_dict())
    with pytest.raises(TrainingError, match=rf"other.safetensors is a {trained}, .* for a {architecture}; train"):
        pose_recipe(persons, start=str(start), architecture=architecture).prepare("cpu")


def test_detector_recipe_refuses_a_start_of_another_architecture(scenes, tmp_path):
    start = tmp_path / "wide.safetensors"
    record = replace(resolve("detector", DETECTOR), architecture="ssdlite_mobilenet_v2_fpn", sha256="")
    ssd = build_person_ssd("ssdlite_mobilenet_v2_fpn")
    save_weights(start, record, DetectorNetwork(ssd).state_dict())
    with pytest.raises(TrainingError, match=r"wide.safetensors is a ssdlite_mobilenet_v2_fpn"):
        detector_recipe(scenes, start=str(start), architecture="ssdlite_mobilenet_v2").prepare("cpu")


def test_pose_recipe_refuses_missing_files(persons, tmp_path):
    with pytest.raises(WeightsError, match="nowhere"):
        pose_recipe(persons, start=str(tmp_path / "nowhere.safetensors")).prepare("cpu")
    with pytest.raises(InputError, match="nowhere"):
        pose_recipe(tmp_path / "nowhere.parquet").prepare("cpu")
    with pytest.raises(InputError, match="nowhere"):
        pose_recipe(persons, validation=tmp_path / "nowhere.parquet").prepare("cpu")


@pytest.mark.parametrize(
    ("recipe", "changed", "message"),
    [
        (pose_recipe, {"input_size_wh": (100, 100)}, "multiples of 32"),
        (pose_recipe, {"architecture": "alexnet"}, "alexnet"),
        (detector_recipe, {"repeat": 0}, "repeat must be at least 1"),
    ],
)
def test_recipes_refuse_impossible_values(recipe, changed, message):
    with pytest.raises(ValueError, match=message):
        recipe(Path("data.parquet"), **changed)
    with pytest.raises(ValueError, match="without folder"):
        replace(recipe(Path("data.parquet")), name="there/mine")


def test_detector_recipe_passes_task_settings_on(scenes):
    task = detector_recipe(scenes, task=DetectorTaskSettings(frozen_blocks=1, backbone_rate=0.5)).prepare("cpu")
    slow, rest = task.parameter_groups()
    assert (slow["scale"], rest["scale"]) == (0.5, 1.0)
    assert not next(task.network.backbone.stage0[0].parameters()).requires_grad
    assert next(task.network.backbone.stage0[1].parameters()).requires_grad
