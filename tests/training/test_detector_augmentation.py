"""Augmentation of pictures: boxes stay on their persons; and the order of examples."""

import numpy as np
import pytest
from support.training_factories import NO_SCENE_AUGMENTATION, encoded

from posebatch.training.detector_augmentation import SceneAugmentation, compose, crop_targets
from posebatch.training.detector_examples import SceneTargets
from posebatch.training.loop import shuffled

SIZE = 320
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
BOXES = [(20, 30, 70, 90), (60, 5, 110, 60), (10, 40, 90, 70), (50, 50, 100, 85)]


def pictures():
    """Black pictures whose person is a rectangle of its own colour."""
    for colour, (left, top, right, bottom) in zip(COLOURS, BOXES, strict=True):
        pixels = np.zeros((100, 120, 3), np.uint8)
        pixels[top:bottom, left:right] = colour
        yield encoded(pixels), SceneTargets(np.array([[left, top, right, bottom]], float), np.zeros(1, bool))


def edges_of(pixels, colour):
    """Edges x1, y1, x2, y2 of the pixels of a colour; None without such pixels."""
    rows, columns = np.nonzero((np.abs(pixels.astype(int) - colour) < 128).all(axis=2))
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else None


def only(**changed):
    return SceneAugmentation(**{**vars(NO_SCENE_AUGMENTATION), **changed})


@pytest.mark.parametrize(
    ("augmentation", "persons"),
    [
        (only(), 1),
        (only(flip=1), 1),
        (only(zoom_out=1), 1),
        (only(crop=1, least_crop=0.35), 1),
        (only(crop=1, least_crop=0.35, flip=1), 1),
        (only(mosaic=1), 4),
        (only(mosaic=1, flip=0.5, crop=0.7, least_crop=0.35), 4),
    ],
)
def test_compose_keeps_boxes_on_their_persons(augmentation, persons):
    matched = 0
    for seed in range(8):
        canvas = compose(pictures().__next__, SIZE, augmentation, np.random.default_rng(seed))
        assert canvas.pixels.shape == (SIZE, SIZE, 3)
        seen = [edges_of(canvas.pixels, colour) for colour in COLOURS[:persons]]
        seen = [edges for edges in seen if edges is not None]
        boxes = canvas.targets.boxes_xyxy
        wide = boxes[(boxes[:, 2:] - boxes[:, :2]).min(axis=1) > 2]  # slivers may leave no pixel
        for box in wide:
            assert min(np.abs(box - edges).max() for edges in seen) <= 1.5
        for edges in seen:
            assert np.abs(boxes - edges).max(axis=1).min() <= 1.5
        matched += len(seen)
    assert matched >= 4 * persons


def test_compose_without_augmentation_only_resizes():
    canvas = compose(pictures().__next__, SIZE, NO_SCENE_AUGMENTATION, np.random.default_rng(0))
    assert canvas.targets.boxes_xyxy[0] == pytest.approx(np.array(BOXES[0]) * np.tile([SIZE / 120, SIZE / 100], 2))
    assert not canvas.targets.ignore.any()


def test_compose_fills_the_canvas_with_grey():
    canvas = compose(pictures().__next__, SIZE, only(zoom_out=1), np.random.default_rng(0))
    assert (canvas.pixels == (124, 116, 104)).all(axis=2).mean() > 0.1


def test_compose_of_empty_pictures_has_no_boxes():
    empty = encoded(np.zeros((50, 50, 3), np.uint8)), SceneTargets(np.zeros((0, 4)), np.zeros(0, bool))
    for seed in range(4):
        canvas = compose(lambda: empty, SIZE, SceneAugmentation(), np.random.default_rng(seed))
        assert canvas.targets.boxes_xyxy.shape == (0, 4)


@pytest.mark.parametrize(
    ("boxes", "ignored", "expected", "expected_ignored"),
    [
        # in the part (100, 100, 200, 200), seen in 200 x 100 pixels
        ([], [], [], []),
        ([[120, 120, 160, 180]], [False], [[40, 20, 120, 80]], [False]),
        ([[120, 120, 160, 180]], [True], [[40, 20, 120, 80]], [True]),
        ([[0, 0, 90, 90]], [False], [], []),  # elsewhere
        ([[0, 0, 100, 300]], [False], [], []),  # ends where the part begins
        ([[50, 120, 150, 180]], [False], [[0, 20, 100, 80]], [False]),  # half is left
        ([[50, 120, 139, 180]], [False], [[0, 20, 78, 80]], [False]),  # 39 of 89 = 0.44
        ([[40, 120, 139, 180]], [False], [[0, 20, 78, 80]], [True]),  # 39 of 99 = 0.39
        ([[150, 150, 151, 190]], [False], [[100, 50, 102, 90]], [True]),  # 2 pixels wide: too small
        ([[0, 0, 300, 300], [150, 150, 190, 190]], [True, False],
         [[0, 0, 200, 100], [100, 50, 180, 90]], [True, False]),
        ([[130, 130, 130, 180]], [False], [], []),  # no area
    ],
)  # fmt: skip
def test_crop_targets_clips_and_ignores_boxes(boxes, ignored, expected, expected_ignored):
    targets = SceneTargets(np.array(boxes, float).reshape(-1, 4), np.array(ignored, bool))
    seen = crop_targets(targets, (100, 100, 200, 200), (200, 100))
    assert seen.boxes_xyxy == pytest.approx(np.array(expected, float).reshape(-1, 4))
    assert seen.ignore.tolist() == expected_ignored


@pytest.mark.parametrize(("field", "value"), [("mosaic", 2), ("crop", -1), ("least_crop", 0)])
def test_scene_augmentation_refuses_values_outside_shares(field, value):
    with pytest.raises(ValueError, match=field):
        SceneAugmentation(**{field: value})


# The order of examples


@pytest.mark.parametrize("length", [1, 2, 7, 100])
def test_shuffled_gives_each_example_once_per_round(length):
    for number_of_round in (0, 1, 5):
        places = range(number_of_round * length, (number_of_round + 1) * length)
        assert sorted(shuffled(place, length, 3) for place in places) == list(range(length))


def test_shuffled_differs_by_round_and_seed():
    orders = [tuple(shuffled(place, 50, seed) for place in range(first, first + 50)) for first, seed in
              ((0, 0), (50, 0), (100, 0), (0, 1), (0, 2))]  # fmt: skip
    assert len(set(orders)) == 5


def test_shuffled_is_a_function_of_its_arguments():
    forward = [shuffled(place, 9, 4) for place in range(60)]
    assert [shuffled(place, 9, 4) for place in reversed(range(60))] == forward[::-1]
    assert [shuffled(place, 5, 7) for place in range(10)] == [0, 1, 3, 4, 2, 1, 3, 2, 4, 0], (
        "another order would change resumed trainings"
    )
