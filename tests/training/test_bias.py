"""Training, inference and evaluation use the same coordinates."""

import numpy as np
import pytest
import torch
from support.training_factories import write_coco

from posebatch.core.settings import EstimatorSettings
from posebatch.evaluation.pose_accuracy import evaluate_keypoints
from posebatch.evaluation.readers import read_dataset
from posebatch.models.networks.pose_network import PoseNetwork
from posebatch.models.weights.names import EMBEDDED, resolve
from posebatch.training.pose_augmentation import NO_AUGMENTATION, crop_person
from posebatch.training.pose_examples import read_pose_examples
from posebatch.training.pose_task import heatmap_targets

WALKERS = 24
SETTINGS = EstimatorSettings(oks_nms_thr=1.0, decoding="dark")
"""``dark`` finds the centre of a Gaussian without the rounding of the quarter offset."""


class CopyOfTargets:
    """An engine that returns the target heatmaps of training, person by person, shifted by ``shift_cells``."""

    batch_size = 1
    device = "cpu"

    def __init__(self, examples, size_wh, shift_cells):
        self._examples, self._size_wh, self._shift_cells, self._next = examples, size_wh, shift_cells, 0

    def __call__(self, images):
        number, random = self._next, np.random.default_rng(0)
        self._next += 1
        image, targets = self._examples.read_image(number), self._examples.targets[number]
        crop = crop_person(image, targets, self._size_wh, NO_AUGMENTATION, random)
        maps, _, _ = heatmap_targets([crop.person], self._size_wh)
        return [maps.roll(self._shift_cells, dims=2)]


@pytest.mark.parametrize("shift_cells", [0, 1])
def test_network_that_copies_its_targets_has_no_bias(tmp_path, shift_cells):
    labels, images = write_coco(tmp_path, WALKERS)
    record = resolve("pose", EMBEDDED["pose"][0])
    engine = CopyOfTargets(read_pose_examples(labels, images), record.input_size_wh, shift_cells)
    engine.device = torch.device("cpu")
    accuracy = evaluate_keypoints(PoseNetwork(record, engine), read_dataset(labels, images), SETTINGS)
    assert accuracy.found == accuracy.persons == WALKERS
    for joint in accuracy.joints:
        if joint.labelled:
            assert joint.bias_x_cells == pytest.approx(0, abs=0.01)
            assert joint.bias_y_cells == pytest.approx(shift_cells, abs=0.01)
