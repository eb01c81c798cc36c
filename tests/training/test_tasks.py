"""The training tasks: losses against plain arithmetic, and the weights that a step may change."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from support.training_factories import NO_SCENE_AUGMENTATION, write_persons, write_scenes

from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.models.networks.pose_resnet import MobileNetShape, PoseMobileNet
from posebatch.models.networks.ssdlite import INPUT_SIZE, build_person_ssd
from posebatch.models.weights.names import EMBEDDED, resolve
from posebatch.pose.crops import apply_affine, grid_to_frame
from posebatch.pose.heatmaps import decode_heatmaps
from posebatch.training.detector_augmentation import SceneAugmentation
from posebatch.training.detector_examples import SceneTargets, read_scenes
from posebatch.training.detector_task import DetectorTask, DetectorTaskSettings, class_loss, match_anchors
from posebatch.training.loop import LoopSettings, train
from posebatch.training.pose_augmentation import NO_AUGMENTATION, PlacedPerson, PoseAugmentation
from posebatch.training.pose_examples import read_pose_examples
from posebatch.training.pose_task import (
    BatchNorms,
    PoseTask,
    PoseTaskSettings,
    heatmap_targets,
    spatial_cross_entropy,
    split_parameters,
    squared_error,
)

SIZE = (64, 96)
POSE = replace(resolve("pose", EMBEDDED["pose"][0]), input_size_wh=SIZE, architecture="mobilenet_v2_d128")
DETECTOR = replace(resolve("detector", EMBEDDED["detector"][0]), architecture="ssdlite_mobilenet_v2")
ONE_STEP = LoopSettings(steps=1, batch_size=2, warmup_steps=0, constant_share=1)
LN2 = float(np.log(2))


@pytest.fixture(scope="module")
def persons(tmp_path_factory):
    return read_pose_examples(write_persons(tmp_path_factory.mktemp("persons") / "data.parquet"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return read_scenes(write_scenes(tmp_path_factory.mktemp("scenes") / "data.parquet"))


def pose_task(persons, augmentation=NO_AUGMENTATION, width=8, **settings):
    torch.manual_seed(0)
    network = PoseMobileNet(MobileNetShape(deconv_width=width))
    for index in (0, 3, 6):  # a head of tiny weights hands back gradients that are too small to see
        torch.nn.init.kaiming_normal_(network.deconv_layers[index].weight)
    return PoseTask(network, POSE, persons, PoseTaskSettings(**settings), augmentation, seed=0)


def detector_task(scenes, augmentation=NO_SCENE_AUGMENTATION, **settings):
    torch.manual_seed(0)
    ssd = build_person_ssd(DETECTOR.architecture)
    return DetectorTask(ssd, DETECTOR, scenes, DetectorTaskSettings(**settings), augmentation, seed=0)


# Heatmaps


def some_maps():
    random = np.random.default_rng(0)
    maps = random.normal(0, 0.3, (2, NUM_KEYPOINTS, 6, 4))
    target = random.uniform(0, 1, maps.shape) ** 4
    target[0, 0] = 0
    return maps, target, random.uniform(0, 1, (2, NUM_KEYPOINTS))


def tensors(*arrays):
    return [torch.from_numpy(array).float() for array in arrays]


def test_squared_error_is_a_weighted_mean():
    maps, target, weight = some_maps()
    expected = sum(
        weight[i, k] * ((maps[i, k] - target[i, k]) ** 2).mean() for i in range(2) for k in range(NUM_KEYPOINTS)
    )
    assert squared_error(*tensors(maps, target, weight)).item() == pytest.approx(expected / weight.sum(), rel=1e-5)


def test_spatial_cross_entropy_equals_plain_arithmetic():
    maps, target, weight = some_maps()
    weight[0, 0] = 0  # nothing is there
    expected = 0.0
    for i in range(2):
        for k in range(NUM_KEYPOINTS):
            share = np.exp(12 * maps[i, k]) / np.exp(12 * maps[i, k]).sum()
            wanted = target[i, k] / max(target[i, k].sum(), 1e-6)
            expected -= weight[i, k] * (wanted * np.log(share)).sum()
    loss = spatial_cross_entropy(*tensors(maps, target, weight)).item()
    assert loss == pytest.approx(expected / weight.sum(), rel=1e-5)


@pytest.mark.parametrize("loss", [squared_error, spatial_cross_entropy])
def test_losses_without_weight_are_0(loss):
    maps, target, weight = some_maps()
    assert loss(*tensors(maps, target, 0 * weight)).item() == 0


def test_heatmap_targets_share_edges_with_the_crop():
    keypoints = np.random.default_rng(1).uniform([10, 10], [50, 80], (1, NUM_KEYPOINTS, 2))
    present = np.arange(NUM_KEYPOINTS) != 5
    person = PlacedPerson(np.eye(2, 3), keypoints[0], np.linspace(0, 1, NUM_KEYPOINTS), present)
    maps, weight, there = heatmap_targets([person], SIZE)
    assert maps.shape == (1, NUM_KEYPOINTS, 24, 16)
    assert weight[0].tolist() == pytest.approx(np.linspace(0, 1, NUM_KEYPOINTS).tolist())
    assert there[0].bool().tolist() == present.tolist()
    assert not maps[0, 5].any()
    whole = np.array([[31.5, 47.5, 64, 96]])  # the crop as a region of itself
    peaks = decode_heatmaps(maps.numpy(), "dark")
    points = apply_affine(grid_to_frame(whole, (16, 24), "edges"), peaks[:, :, :2])
    inside = present & (peaks[0, :, 0] > 2) & (peaks[0, :, 0] < 13)
    assert inside.sum() > 8
    assert points[0, inside] == pytest.approx(keypoints[0, inside], abs=0.5)


def test_pose_task_loss_is_the_sum_of_its_parts(persons):
    task = pose_task(persons, cross_entropy=0.6)
    early, late = (task.loss(task.network, range(2), progress) for progress in (0.5, 0.9))
    assert early["loss"].item() == pytest.approx(500 * early["mse"].item() + 0.6 * early["cross_entropy"].item())
    assert late["loss"].item() == pytest.approx(500 * late["mse"].item() + 0.2 * late["cross_entropy"].item())
    assert task.evaluate(task.network) == {}


@pytest.mark.parametrize("crops_on_device", [False, True])
def test_pose_task_examples_depend_on_their_number_only(persons, crops_on_device):
    first, second = (pose_task(persons, PoseAugmentation(), crops_on_device=crops_on_device) for _ in range(2))

    def loss(task, number):
        return task.loss(task.network, range(number, number + 2), 0)["loss"].item()

    losses = [loss(first, 0), loss(first, 4)]
    assert [loss(second, 4), loss(second, 0)] == losses[::-1]
    assert losses[0] != losses[1]


def test_pose_task_orders_channels_by_the_record(persons):
    plain, swapped = pose_task(persons), pose_task(persons)
    swapped._record = replace(POSE, channel_order="BGR")
    crop, _ = plain._crops([0], torch.device("cpu"))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (POSE.mean, POSE.std))
    assert torch.allclose(
        plain._normalised(crop) * std + mean, (swapped._normalised(crop) * std + mean).flip(1), atol=1e-6
    )


# What a step changes


def changed(task, folder):
    before = {key: tensor.clone() for key, tensor in task.network.state_dict().items()}
    train(task, ONE_STEP, folder)
    after = task.network.state_dict()
    return {key for key in before if not torch.equal(before[key], after[key])}, set(before)


@pytest.mark.parametrize("batch_norms", get_args(BatchNorms))
def test_pose_task_step_keeps_frozen_blocks(persons, tmp_path, batch_norms):
    moved, known = changed(pose_task(persons, frozen_blocks=3, batch_norms=batch_norms), tmp_path)
    frozen = {key for key in known if key.startswith(("backbone.0.", "backbone.1.", "backbone.2."))}
    assert frozen
    assert not moved & frozen
    assert {"final_layer.weight", "deconv_layers.0.weight", "backbone.17.conv.2.weight"} <= moved
    assert ("backbone.17.conv.3.running_mean" in moved) == (batch_norms == "all")
    assert ("deconv_layers.1.running_mean" in moved) == (batch_norms != "folded")


@pytest.mark.parametrize("fold", [True, False])
def test_detector_task_step_keeps_frozen_blocks(scenes, tmp_path, fold):
    moved, known = changed(detector_task(scenes, frozen_blocks=2, fold_batch_norms=fold), tmp_path)
    frozen = {key for key in known if key.startswith(("backbone.stage0.0.", "backbone.stage0.1."))}
    assert frozen
    assert not moved & frozen
    assert any(key.startswith("head.classification_head") for key in moved)
    assert any(key.startswith("backbone.stage0.3") for key in moved)


def test_split_parameters_covers_all_learning_parameters():
    network = PoseMobileNet(MobileNetShape(deconv_width=8))
    backbone, head = split_parameters(network, frozen_blocks=2)
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert len(backbone) + len(head) == len(learning)
    assert {id(parameter) for parameter in backbone + head} == {id(parameter) for parameter in learning}
    assert id(network.final_layer.weight) in {id(parameter) for parameter in head}


# Boxes

ANCHORS = torch.tensor([
    [0.25, 0.25, 0.2, 0.2],
    [0.25, 0.205, 0.2, 0.09],  # 45 % of the first: neither
    [0.25, 0.25, 0.1, 0.4],  # a third
    [0.75, 0.75, 0.2, 0.2],
    [0.5, 0.5, 0.9, 0.9],
])  # fmt: skip
FIRST = [0.15, 0.15, 0.35, 0.35]
CORNER = [0.96, 0.96, 0.99, 0.99]  # in no anchor at all
LOWER = [0.9, 0.9, 0.94, 0.94]  # in the last one, which it overlaps by next to nothing


@pytest.mark.parametrize(
    ("boxes", "ignored", "person", "negative"),
    [
        ([], [], [-1] * 5, [1, 1, 1, 1, 1]),
        ([FIRST], [False], [0, -1, -1, -1, -1], [0, 0, 1, 1, 1]),
        ([FIRST, LOWER], [False, False], [0, -1, -1, -1, 1], [0, 0, 1, 1, 0]),
        ([[0.15, 0.1, 0.35, 0.35]], [True], [-1] * 5, [0, 0, 0, 1, 1]),  # five eighths of the third lie in it
        ([[0.15, 0.2, 0.35, 0.35]], [True], [-1] * 5, [0, 0, 1, 1, 1]),  # three eighths
        ([[0, 0, 1, 1]], [True], [-1] * 5, [0] * 5),
        ([[0, 0, 1, 1], FIRST], [True, False], [0, -1, -1, -1, -1], [0] * 5),
    ],
)
def test_match_anchors_finds_positives_and_negatives(boxes, ignored, person, negative):
    scene = SceneTargets(np.array(boxes, float).reshape(-1, 4) * INPUT_SIZE, np.array(ignored, bool))
    match = match_anchors(ANCHORS, scene)
    assert match.box.tolist() == person
    assert match.negative.int().tolist() == negative
    assert match.boxes.shape == (len(boxes) - sum(ignored), 4)


@pytest.mark.parametrize(
    ("positives", "negatives", "loss"),
    [
        (0, 0, 0.0),  # all ignored
        (0, 30, 10 * LN2),
        (1, 30, 11 * LN2),
        (4, 30, 16 * LN2 / 4),
        (4, 5, 9 * LN2 / 4),
    ],
)
def test_class_loss_limits_negatives(positives, negatives, loss):
    logits = torch.zeros(1, 40, 2, requires_grad=True)
    numbers = torch.arange(40)[None]
    positive, negative = numbers < positives, (numbers >= positives) & (numbers < positives + negatives)
    computed = class_loss(logits, positive, negative)
    assert computed.item() == pytest.approx(loss)
    computed.backward()
    assert torch.isfinite(logits.grad).all()


def test_class_loss_takes_the_hardest_negatives():
    logits = torch.zeros(1, 40, 2)
    logits[0, 20:32, 1] = 5.0  # twelve that are taken for persons
    positive = (torch.arange(40) < 1)[None]
    surely = float(np.log1p(np.exp(5.0)))
    assert class_loss(logits, positive, ~positive).item() == pytest.approx(LN2 + 10 * surely, rel=1e-5)
    known = ~positive & (torch.arange(40) < 30)[None]  # the last two of the twelve are ignored
    assert class_loss(logits, positive, known).item() == pytest.approx(LN2 + 10 * surely, rel=1e-5)
    known = ~positive & (torch.arange(40) < 25)[None]
    assert class_loss(logits, positive, known).item() == pytest.approx(6 * LN2 + 5 * surely, rel=1e-5)


def test_detector_task_learns_from_pictures_without_persons(scenes):
    task = detector_task(scenes)
    empty = next(number for number in range(5) if not len(task._canvas(number).targets.ignore))
    losses = task.loss(task.network, range(empty, empty + 1), 0)
    assert losses["box_loss"].item() == 0
    losses["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in task.network.parameters() if p.grad is not None)


def test_detector_task_box_loss_of_exact_boxes_is_0(scenes):
    task = detector_task(scenes, augmentation=SceneAugmentation(mosaic=1))
    losses = task.loss(task.network, range(5), 0)
    assert losses["loss"].item() == pytest.approx(losses["class_loss"].item() + 2 * losses["box_loss"].item(), rel=1e-5)

    class Perfect(torch.nn.Module):
        """Returns each person's own box at every anchor that matches it."""

        def forward(self, images):
            matches = [match_anchors(task._anchors, task._canvas(number).targets) for number in range(5)]
            codes = torch.stack([encoded(match) for match in matches])
            return torch.zeros(5, len(task._anchors), 2), codes

    def encoded(match):
        centre, size = task._anchors[:, :2], task._anchors[:, 2:]
        codes = torch.zeros(len(task._anchors), 4)
        for anchor in (match.box >= 0).nonzero()[:, 0]:
            box = match.boxes[match.box[anchor]]
            codes[anchor, :2] = 10 * ((box[:2] + box[2:]) / 2 - centre[anchor]) / size[anchor]
            codes[anchor, 2:] = 5 * torch.log((box[2:] - box[:2]) / size[anchor])
        return codes

    assert task.loss(Perfect(), range(5), 0)["box_loss"].item() == pytest.approx(0, abs=1e-4)
