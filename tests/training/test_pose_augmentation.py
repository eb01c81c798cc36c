"""Person crops: keypoints stay on their pixels in every crop, and training crops like inference."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.training_factories import encoded, targets

from posebatch.core.skeleton import FLIP_ORDER, KEYPOINT_NAMES, NUM_KEYPOINTS
from posebatch.pose.crops import BOX_PADDING, crop_regions
from posebatch.pose.pixels import sample_crop
from posebatch.training.pose_augmentation import (
    NO_AUGMENTATION,
    PoseAugmentation,
    crop_person,
    half_body_box,
    random_placement,
    vary_colours,
    vary_pixels,
)

SIZE = (96, 128)
PICTURE = (240, 220)
BOX = (70.0, 50.0, 160.0, 170.0)
DOT = 4.0
"""Standard deviation of the painted dot, pixels of the picture."""

PLACEMENT_ONLY = {"occlusion": 0, "low_resolution": 0, "colour": 0}


def dotted(x, y):
    columns, rows = np.arange(PICTURE[0]), np.arange(PICTURE[1])
    dot = np.exp(-((columns[None] - x) ** 2 + (rows[:, None] - y) ** 2) / (2 * DOT**2))
    return encoded(np.repeat((255 * dot).astype(np.uint8)[..., None], 3, axis=2))


def centre_of_mass(pixels):
    weight = pixels[..., 0].astype(float)
    rows, columns = np.indices(weight.shape)
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("mirrored", [False, True])
@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), joint=st.integers(0, NUM_KEYPOINTS - 1))
def test_crop_person_keeps_keypoints_on_their_pixels(mirrored, seed, joint):
    random = np.random.default_rng(seed)
    points = random.uniform(BOX[:2], BOX[2:], (NUM_KEYPOINTS, 2))
    augmentation = PoseAugmentation(flip=float(mirrored), rotation=1, half_body=0.5, shift=0.2, **PLACEMENT_ONLY)
    crop = crop_person(dotted(*points[joint]), targets(points, BOX), SIZE, augmentation, random)
    marked = FLIP_ORDER[joint] if mirrored else joint
    where = crop.person.keypoints[marked]
    far_inside = ((where > 14) & (where < np.array(SIZE) - 15)).all()
    if far_inside:
        assert crop.person.weights[marked] == 1
        assert centre_of_mass(crop.pixels) == pytest.approx(where, abs=1.0)
    if not ((where > -1) & (where < SIZE)).all():
        assert crop.person.weights[marked] == 0


def test_crop_person_swaps_sides_when_mirrored():
    left, right = KEYPOINT_NAMES.index("left_wrist"), KEYPOINT_NAMES.index("right_wrist")
    points = np.full((NUM_KEYPOINTS, 2), 110.0)
    points[left], points[right] = (90, 100), (140, 120)
    weights, present = np.ones(NUM_KEYPOINTS), np.ones(NUM_KEYPOINTS, bool)
    weights[left], present[right] = 0.4, False
    flip = PoseAugmentation(1, 0, 0, 0, 0, 0, 0, 0, 0)
    person = targets(points, BOX, weights, present)
    plain = crop_person(dotted(90, 100), person, SIZE, NO_AUGMENTATION, np.random.default_rng(0))
    mirror = crop_person(dotted(90, 100), person, SIZE, flip, np.random.default_rng(0))
    assert mirror.person.keypoints[right] == pytest.approx(
        [SIZE[0] - 1 - plain.person.keypoints[left, 0], plain.person.keypoints[left, 1]]
    )
    assert mirror.person.weights[right] == 0.4
    assert mirror.person.weights[left] == 1
    assert not mirror.person.present[left]
    assert np.abs(mirror.pixels.astype(int) - plain.pixels[:, ::-1]).max() <= 1


@pytest.mark.parametrize(
    ("box", "differing"),
    [
        (BOX, 0.0),
        ((30.5, 20.25, 60.75, 90.0), 0.0),
        ((-30.0, 100.0, 60.0, 260.0), 0.02),  # over the picture's edge, where one blends to black and the other cuts
    ],
)
def test_crop_person_equals_the_crop_of_inference(box, differing):
    noise = np.random.default_rng(5).integers(0, 256, (22, 24, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(noise).resize(PICTURE, Image.Resampling.BICUBIC))
    crop = crop_person(encoded(picture), targets(box=box), SIZE, NO_AUGMENTATION, np.random.default_rng(0))
    region = crop_regions(np.array([box]), SIZE[0] / SIZE[1], BOX_PADDING)[0]
    seen = sample_crop(torch.from_numpy(picture.copy()), region, SIZE).permute(1, 2, 0).numpy()
    distance = np.abs(crop.pixels - seen).max(axis=2)
    assert (distance > 1.5).mean() <= differing


def test_random_placement_stays_within_its_limits():
    turns, sizes = [], []
    for seed in range(60):
        augmentation = PoseAugmentation(0, 0.3, 40, 0.6, 0, 0, 0, 0, 0)
        to_image, _ = random_placement(targets(box=BOX), SIZE, augmentation, np.random.default_rng(seed))
        turns.append(np.degrees(np.arctan2(to_image[1, 0], to_image[0, 0])))
        sizes.append(np.hypot(*to_image[:, 0]))
    plain = random_placement(targets(box=BOX), SIZE, NO_AUGMENTATION, np.random.default_rng(0))[0][0, 0]
    assert 30 < np.abs(turns).max() <= 40
    assert min(turns) < -20
    assert max(turns) > 20
    assert 0.2 < np.mean(np.abs(turns) < 1e-6) < 0.6
    assert 0.7 * plain <= min(sizes) < 0.8 * plain
    assert 1.2 * plain < max(sizes) <= 1.3 * plain


def test_crop_person_gives_joints_outside_no_weight():
    points = np.full((NUM_KEYPOINTS, 2), 110.0)
    points[[3, 4]] = -400, -400
    weights, present = np.full(NUM_KEYPOINTS, 0.5), np.ones(NUM_KEYPOINTS, bool)
    present[4] = False  # that nothing is there is as true in the crop
    crop = crop_person(
        dotted(0, 0), targets(points, BOX, weights, present), SIZE, NO_AUGMENTATION, np.random.default_rng(0)
    )
    assert crop.person.weights.tolist() == [0.5] * 3 + [0.0] + [0.5] * 13


def test_half_body_box_encloses_its_joints():
    points = np.full((NUM_KEYPOINTS, 2), 100.0)
    points[:11, 1] = np.linspace(60, 90, 11)
    points[11:] = np.linspace([80, 120], [120, 160], 6)
    whole = targets(points, BOX)
    assert half_body_box(whole, upper=True) == pytest.approx([95, 55, 105, 95])
    assert half_body_box(whole, upper=False) == pytest.approx([74, 114, 126, 166])
    few = targets(points, BOX, weights=np.arange(NUM_KEYPOINTS) < 7)
    assert half_body_box(few, upper=True).tolist() == list(BOX)
    no_legs = targets(points, BOX, weights=np.arange(NUM_KEYPOINTS) < 13)
    assert half_body_box(no_legs, upper=False).tolist() == list(BOX)


def test_crop_person_is_determined_by_its_generator():
    crops = [
        crop_person(dotted(110, 100), targets(box=BOX), SIZE, PoseAugmentation(), np.random.default_rng(seed))
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(crops[0].pixels, crops[1].pixels)
    assert not np.array_equal(crops[0].pixels, crops[2].pixels)


@pytest.mark.parametrize("field", ["occlusion", "low_resolution", "colour"])
def test_vary_pixels_varies_only_what_is_enabled(field):
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (128, 96, 3), dtype=np.uint8))
    still = vary_pixels(picture, NO_AUGMENTATION, np.random.default_rng(0))
    assert np.array_equal(still, np.asarray(picture))
    only = PoseAugmentation(**{**vars(NO_AUGMENTATION), field: 1})
    varied = vary_pixels(picture, only, np.random.default_rng(0))
    assert varied.shape == still.shape
    assert not np.array_equal(varied, still)


def test_vary_colours_changes_nothing_at_probability_0():
    picture = Image.new("RGB", (4, 4), (10, 20, 30))
    assert (vary_colours(picture, 0, np.random.default_rng(0)) == (10, 20, 30)).all()


def test_pose_augmentation_defaults_are_those_of_the_paper():
    """lib/dataset/JointsDataset.py and experiments/coco: FLIP, SCALE_FACTOR 0.3, ROT_FACTOR 40, 0.6 of the time."""
    augmentation = PoseAugmentation()
    assert (augmentation.flip, augmentation.scale) == (0.5, 0.3)
    assert (augmentation.rotation_degrees, augmentation.rotation) == (40, 0.6)


def test_random_placement_without_augmentation_is_that_of_inference():
    to_image, mirrored = random_placement(targets(box=BOX), SIZE, NO_AUGMENTATION, np.random.default_rng(0))
    assert not mirrored
    region = crop_regions(np.array([BOX]), SIZE[0] / SIZE[1])[0]
    assert to_image @ [(SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2, 1] == pytest.approx(region[:2])


@pytest.mark.parametrize(("field", "value"), [("flip", 1.5), ("scale", -0.1), ("half_body", float("nan"))])
def test_pose_augmentation_refuses_values_outside_shares(field, value):
    with pytest.raises(ValueError, match=f"{field} must be in 0..1"):
        PoseAugmentation(**{field: value})
