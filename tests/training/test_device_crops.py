"""Crops on the network's device: equal to Pillow's, and varied within the same limits."""

import numpy as np
import pytest
import torch
from support.training_factories import drawn_persons, encoded, targets

from posebatch.training.device_crops import DevicePictures, vary_crops
from posebatch.training.pose_augmentation import NO_AUGMENTATION, PoseAugmentation, crop_person, place_person
from posebatch.training.pose_examples import PoseExamples

SIZE = (64, 96)
BOX = (20, 30, 120, 180)
ON_CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")],
)


def generators(n):
    return [np.random.default_rng(seed) for seed in range(n)]


@pytest.mark.parametrize("device", ["cpu", ON_CUDA])
def test_device_pictures_give_the_crops_of_pillow(device):
    pictures = [encoded(pixels[: 200 - 30 * number]) for number, (pixels, _, _) in enumerate(drawn_persons())]
    examples = PoseExamples(tuple(targets(box=BOX) for _ in pictures), pictures.__getitem__)
    placement = PoseAugmentation(low_resolution=0, colour=0, occlusion=0, rotation=1)
    persons = [
        place_person(target, SIZE, placement, random)
        for target, random in zip(examples.targets, generators(4), strict=True)
    ]
    expected = [
        crop_person(picture, targets(box=BOX), SIZE, placement, random).pixels
        for picture, random in zip(pictures, generators(4), strict=True)
    ]
    crops = DevicePictures(examples, device).crops(range(4), persons, SIZE).permute(0, 2, 3, 1).cpu().numpy()
    assert crops.shape == (4, 96, 64, 3)
    assert np.quantile(np.abs(crops - np.stack(expected)), 0.98) < 3  # Pillow's borders are sharp, these fade to black


def test_vary_crops_changes_nothing_without_augmentation():
    crops = 255 * torch.rand(3, 3, 96, 64)
    torch.testing.assert_close(vary_crops(crops, NO_AUGMENTATION, generators(3)), crops, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ["low_resolution", "colour", "occlusion"])
def test_vary_crops_stays_in_range_and_repeats_itself(kind):
    augmentation = PoseAugmentation(**{**dict.fromkeys(vars(NO_AUGMENTATION), 0.0), kind: 1.0})
    crops = 255 * torch.rand(4, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    varied = vary_crops(crops, augmentation, generators(4))
    assert (varied != crops).flatten(1).any(dim=1).all()
    assert varied.min() >= 0
    assert varied.max() <= 255
    assert torch.equal(varied, vary_crops(crops, augmentation, generators(4)))
    if kind == "occlusion":
        untouched = (varied == crops).all(dim=1).float().mean(dim=(1, 2))
        assert ((untouched > 0.3) & (untouched < 1)).all()
