"""Labelled frames of the sample, for tests of networks and commands."""

from itertools import islice

import numpy as np
import pytest
from support.evaluation_factories import write_coco

from posebatch.demo.sample import render_sample


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """COCO labels of four frames of the sample: one frame is lower, and its persons have no labels."""
    folder = tmp_path_factory.mktemp("coco")
    images = []
    for number, (frame, persons) in enumerate(islice(render_sample(), 120, 211, 30)):
        counted = [person for person in persons if person.counts] if number != 2 else []
        boxes = [[*person.box_xyxy[:2] + 0.5, *person.box_xyxy[2:] - person.box_xyxy[:2]] for person in counted]
        joints = [
            np.nan_to_num(np.concatenate([person.joints, 2.0 * person.visible[:, None]], axis=1)) for person in counted
        ]
        images.append((frame[:460] if number == 2 else frame, boxes, joints))
    return write_coco(folder, images)
