"""The pose network at work: preprocessing, batches, flip test."""

from dataclasses import replace

import pytest
import torch

from posebatch.core.skeleton import FLIP_ORDER
from posebatch.models.networks.engines import PLAIN, start_engine
from posebatch.models.networks.pose_network import PoseNetwork, load_pose_network
from posebatch.models.networks.pose_resnet import build_pose_network
from posebatch.models.weights.files import load_into, load_weights

NAME = "simplebaseline_mobilenet_v2_256x192_relabelled"


@pytest.fixture(scope="module")
def network():
    return load_pose_network(NAME)


def random_crops(n, seed=0):
    """Smooth noise (n, 3, 256, 192) in 0..255; neighbouring pixels are similar as in a photo."""
    coarse = torch.rand(n, 3, 8, 6, generator=torch.Generator().manual_seed(seed)) * 255
    return torch.nn.functional.interpolate(coarse, size=(256, 192), mode="bilinear")


def rebuilt(**changes):
    """The embedded network with changes in its record."""
    record, state = load_weights("pose", NAME)
    module = build_pose_network(record.architecture)
    load_into(module, state, NAME)
    return PoseNetwork(replace(record, **changes), start_engine(module, record.input_size_wh, PLAIN))


@pytest.mark.parametrize("n", [0, 1, 3, 4])
@pytest.mark.parametrize("flip_test", [False, True])
def test_heatmaps_have_one_map_for_each_joint(network, n, flip_test):
    maps = network.heatmaps(random_crops(n), flip_test)
    assert network.heatmap_size_wh == (48, 64)
    assert maps.shape == (n, 17, 64, 48)
    assert maps.dtype == torch.float32


@pytest.mark.parametrize("shape", [(3, 256, 192), (1, 3, 192, 256), (1, 256, 192, 3), (5, 3, 256, 192)])
def test_heatmaps_refuse_wrong_shapes(network, shape):
    with pytest.raises(ValueError, match=r"crops must be|batch size"):
        network.heatmaps(torch.zeros(shape))


def test_prepared_network_equals_the_plain_one(network):
    record, state = load_weights("pose", NAME)
    plain = build_pose_network(record.architecture)
    load_into(plain, state, NAME)
    crops = random_crops(2)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (record.mean, record.std))
    with torch.inference_mode():
        expected = plain.eval()((crops / 255 - mean) / std)
    torch.testing.assert_close(network.heatmaps(crops), expected, atol=1e-4, rtol=0)


def test_heatmaps_do_not_depend_on_other_crops(network):
    crops = random_crops(4)
    together = network.heatmaps(crops)
    assert torch.equal(network.heatmaps(torch.cat([crops[:1], random_crops(3, seed=1)]))[0], together[0])
    torch.testing.assert_close(network.heatmaps(crops[:1])[0], together[0], atol=1e-5, rtol=0)


def test_flip_test_gives_mirrored_maps_for_a_mirrored_crop(network):
    crops = random_crops(2)
    maps = network.heatmaps(crops, flip_test=True)
    mirrored = network.heatmaps(crops.flip(3), flip_test=True)
    torch.testing.assert_close(mirrored[:, FLIP_ORDER].flip(3), maps, atol=1e-6, rtol=0)
    assert not torch.allclose(network.heatmaps(crops), maps, atol=1e-3)


def test_flip_test_shifts_mirrored_maps_one_column_right(network):
    crops = random_crops(1)
    plain = network.heatmaps(crops)
    mirrored = network.heatmaps(crops.flip(3))[:, FLIP_ORDER].flip(3)
    shifted = torch.cat([mirrored[..., :1], mirrored[..., :-1]], dim=3)
    maps = rebuilt(shift_flipped=True).heatmaps(crops, flip_test=True)
    torch.testing.assert_close(maps, (plain + shifted) / 2, atol=1e-6, rtol=0)


def test_bgr_weights_get_reversed_channels(network):
    crops = random_crops(1)
    symmetric = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
    rgb, bgr = rebuilt(**symmetric), rebuilt(**symmetric, channel_order="BGR")
    assert torch.equal(bgr.heatmaps(crops.flip(1)), rgb.heatmaps(crops))
