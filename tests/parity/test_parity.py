"""Agreement with the paper's own code, and a proof that each constant matters.

golden.npz holds the results of microsoft/human-pose-estimation.pytorch, and of ilovepose/DarkPose for DARK, on the
inputs of `parity_rules`. ``make_golden.py`` writes it.
"""

from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from parity import parity_rules as rules

import posebatch.core.similarity
import posebatch.models.networks.pose_network
import posebatch.pose.heatmaps
from posebatch.core.frames import Detections, FrameRecord
from posebatch.core.images import FrameBatch
from posebatch.core.settings import EstimatorSettings
from posebatch.core.similarity import oks_nms, rescore
from posebatch.core.skeleton import KEYPOINT_NAMES, OKS_SIGMAS
from posebatch.models.networks.engines import PLAIN, start_engine
from posebatch.models.networks.pose_network import PoseNetwork
from posebatch.models.networks.pose_resnet import build_pose_network
from posebatch.models.weights.files import load_into
from posebatch.models.weights.records import PoseRecord
from posebatch.pose.crops import apply_affine, crop_regions, grid_to_frame, invert_affine
from posebatch.pose.estimator import PoseEstimator
from posebatch.pose.heatmaps import decode_heatmaps
from posebatch.pose.pixels import sample_crop

GOLDEN = dict(np.load(Path(__file__).parent / "golden.npz"))

PIXELS = 0.01
"""Tolerance for keypoints, pixels of the frame."""

PAPER = PoseRecord(
    name="by_rule",
    architecture=f"resnet{rules.END_TO_END_RESNET}",
    input_size_wh=rules.NETWORK_WH,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    channel_order="BGR",
    box_padding=1.25,
    grid_alignment="origin",
    shift_flipped=True,
    keypoint_names=KEYPOINT_NAMES,
    licence="",
    source="",
    training="",
    accuracy={},
)
"""The preprocessing of the paper's code."""


def xyxy(boxes_xywh):
    return np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)


@cache
def built(architecture):
    """The network with the weights of `parity_rules`. Cached, because building it takes longer than running it."""
    module = build_pose_network(architecture)
    by_rule = {
        key: torch.from_numpy(rules.weight(key, tuple(value.shape))) for key, value in module.state_dict().items()
    }
    load_into(module, by_rule, "by rule")
    return module.eval()


def network(record):
    return PoseNetwork(record, start_engine(deepcopy(built(record.architecture)), record.input_size_wh, PLAIN))


# --- box to crop -------------------------------------------------------------------------------------------------


def regions_of(padding=1.25, aspect=192 / 256):
    return crop_regions(xyxy(rules.GEOMETRY_BOXES), aspect, padding)


def check_boxes(regions):
    np.testing.assert_allclose(regions[:, :2], GOLDEN["centre"], rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(regions[:, 2:], GOLDEN["scale"] * 200, rtol=1e-6, atol=1e-4)


def check_affine(regions, size_wh=rules.CROP_WH, alignment="origin"):
    """Compare the maps, and the crop's corners in the frame. The paper's code uses float32, precise to 1e-6."""
    theirs = GOLDEN["to_crop"]
    ours = invert_affine(grid_to_frame(regions, size_wh, alignment))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-3)
    corners = np.tile([(0.0, 0.0), size_wh], (len(regions), 1, 1))
    in_frame = apply_affine(grid_to_frame(regions, size_wh, alignment), corners)
    np.testing.assert_allclose(in_frame, apply_affine(invert_affine(theirs), corners), atol=PIXELS)


def test_crop_regions_equal_the_papers():
    check_boxes(regions_of())
    check_affine(regions_of())


@pytest.mark.parametrize("changed", [{"padding": 1.2}, {"padding": 1.0}, {"aspect": 256 / 192}], ids=str)
def test_crop_regions_differ_with_another_padding_or_aspect(changed):
    with pytest.raises(AssertionError):
        check_boxes(regions_of(**changed))


@pytest.mark.parametrize(
    "changed", [{"alignment": "edges"}, {"alignment": "one_based"}, {"size_wh": rules.CROP_WH[::-1]}], ids=str
)
def test_crop_affines_differ_with_another_grid(changed):
    with pytest.raises(AssertionError):
        check_affine(regions_of(), **changed)


def check_pixels(alignment="origin", channels=(0, 1, 2)):
    """``cv2.warpAffine`` rounds positions to 1/32 pixel and results to whole grey levels.

    So it may differ by half a level plus, on each axis, 1/64 of the largest step between two pixels. The steps within
    the frame are small; the largest is the one to the black border.
    """
    frame = torch.from_numpy(rules.frame(1))
    padded = np.pad(rules.frame(1).astype(np.float64), ((1, 1), (1, 1), (0, 0)))  # black beyond the frame
    regions = regions_of()
    for region, theirs in zip(regions, GOLDEN["crops"], strict=False):
        ours = sample_crop(frame, region, rules.CROP_WH, alignment).numpy().transpose(1, 2, 0)[::7, ::5, channels]
        at = apply_affine(grid_to_frame(region[None], rules.CROP_WH, alignment), rules.crop_positions())[0]
        inside = ((at >= 1) & (at <= np.array(rules.FRAME_WH) - 2)).all(axis=1).reshape(theirs.shape[:2])
        steepest = max(np.abs(np.diff(padded[1:-1, 1:-1], axis=axis)).max() for axis in (0, 1))
        apart = np.abs(ours - theirs.astype(np.float64))
        assert apart[inside].max(initial=0) <= 0.5 + 2 * steepest / 64
        assert apart.max() <= 0.5 + 2 * 255 / 64


def test_crop_pixels_equal_the_papers():
    check_pixels()


@pytest.mark.parametrize("changed", [{"alignment": "edges"}, {"channels": (2, 1, 0)}], ids=str)
def test_crop_pixels_differ_with_another_alignment_or_channel_order(changed):
    with pytest.raises(AssertionError):
        check_pixels(**changed)


# --- the network -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", rules.RESNETS)
def test_networks_equal_the_papers(layers):
    with torch.inference_mode():
        maps = built(f"resnet{layers}")(torch.from_numpy(rules.network_input())).numpy()
    golden = GOLDEN[f"resnet{layers}"]
    assert golden.std() > 0.1, "there is something to compare"
    np.testing.assert_allclose(maps[:, :, ::3, ::3], golden, atol=1e-4, rtol=0)


def test_networks_differ_with_swapped_channels():
    with torch.inference_mode():
        maps = built("resnet18")(torch.from_numpy(rules.network_input()[:, ::-1].copy())).numpy()
    assert np.abs(maps[:, :, ::3, ::3] - GOLDEN["resnet18"]).max() > 1e-2


# --- heatmaps to keypoints ---------------------------------------------------------------------------------------


def check_decoding(refinement="quarter", alignment="origin", golden=GOLDEN["decoded"]):
    peaks = decode_heatmaps(rules.heatmaps(), refinement)
    to_frame = grid_to_frame(regions_of(), (48, 64), alignment)
    np.testing.assert_allclose(apply_affine(to_frame, peaks[..., :2]), golden[..., :2], atol=PIXELS)
    np.testing.assert_array_equal(peaks[..., 2], golden[..., 2])


def test_decoding_equals_the_papers():
    """The maps include peaks on edges, and maps without a positive value."""
    check_decoding()


def test_dark_decoding_equals_its_authors_code():
    check_decoding("dark", golden=GOLDEN["decoded_dark"])
    with pytest.raises(AssertionError):
        check_decoding("quarter", golden=GOLDEN["decoded_dark"])


def test_dark_decoding_differs_with_another_blur(monkeypatch):
    monkeypatch.setattr(posebatch.pose.heatmaps, "SIGMA", 1.8)
    with pytest.raises(AssertionError):
        check_decoding("dark", golden=GOLDEN["decoded_dark"])


@pytest.mark.parametrize(
    "changed",
    [{"refinement": "argmax"}, {"refinement": "dark"}, {"alignment": "edges"}, {"alignment": "one_based"}],
    ids=str,
)
def test_decoding_differs_with_another_variant(changed):
    with pytest.raises(AssertionError):
        check_decoding(**changed)


def test_decoding_differs_with_another_step(monkeypatch):
    monkeypatch.setattr(posebatch.pose.heatmaps, "QUARTER_STEP", 0.2)
    with pytest.raises(AssertionError):
        check_decoding()


# --- persons -----------------------------------------------------------------------------------------------------


def check_scoring(kpt_thr=rules.KPT_THR, oks_thr=rules.OKS_THR, area_factor=1.0):
    keypoints, box_scores, areas = rules.crowd()
    scores = rescore(box_scores, keypoints[..., 2], kpt_thr)
    kept = oks_nms(keypoints[..., :2], scores, areas * area_factor, oks_thr)
    np.testing.assert_array_equal(kept, GOLDEN["kept_rescored"])
    np.testing.assert_allclose(scores[kept], GOLDEN["rescored"], rtol=1e-6)
    by_box = oks_nms(keypoints[..., :2], box_scores, areas * area_factor, oks_thr)
    np.testing.assert_array_equal(by_box, GOLDEN["kept_by_box_score"])


def test_person_scores_and_nms_equal_the_papers():
    check_scoring()
    assert 0 < len(GOLDEN["kept_rescored"]) < len(rules.crowd()[0]), "some persons are kept and some are dropped"


@pytest.mark.parametrize("changed", [{"kpt_thr": 0.3}, {"oks_thr": 0.5}, {"area_factor": 1 / 1.25**2}], ids=str)
def test_person_scores_and_nms_differ_with_other_thresholds_or_areas(changed):
    with pytest.raises(AssertionError):
        check_scoring(**changed)


def test_person_nms_differs_with_other_sigmas(monkeypatch):
    monkeypatch.setattr(posebatch.core.similarity, "OKS_SIGMAS", OKS_SIGMAS / 2)
    with pytest.raises(AssertionError):
        check_scoring()


# --- everything --------------------------------------------------------------------------------------------------


class GivenBoxes:
    """A detector that gives the first ``persons`` boxes of each frame of `parity_rules`."""

    batch_size = rules.NUM_FRAMES

    def __init__(self, persons):
        self.persons = persons

    def detect(self, images):
        return [self._of(number) for number in range(len(images))]

    def _of(self, frame):
        boxes, scores = zip(*((box, score) for number, box, score in rules.PERSONS if number == frame), strict=True)
        return Detections(
            xyxy(np.array(boxes[: self.persons])).astype(np.float32), np.array(scores[: self.persons], np.float32)
        )


def estimated(record, frames, persons, **settings):
    """Keypoints (persons, 17, 3) in the order of `parity_rules.PERSONS`, and pose scores."""
    images = np.stack([rules.frame(number) for number in range(frames)])
    records = tuple(FrameRecord(number, number, True, "ok") for number in range(frames))
    estimator = PoseEstimator(GivenBoxes(persons), network(record), EstimatorSettings(**settings), PLAIN)
    poses = list(estimator.estimate([FrameBatch(records, images)]))
    order = [
        np.argsort(-frame.bbox_scores) for frame in poses
    ]  # the box scores of the rules are distinct and descending
    keypoints = np.concatenate([frame.keypoints[rank] for frame, rank in zip(poses, order, strict=True)])
    return keypoints, np.concatenate([frame.pose_scores[rank] for frame, rank in zip(poses, order, strict=True)])


def check_persons(keypoints, golden):
    theirs = golden[: len(keypoints)]
    np.testing.assert_allclose(keypoints[..., 2], theirs[..., 2], atol=1e-4, rtol=0)
    np.testing.assert_allclose(keypoints[..., :2], theirs[..., :2], atol=PIXELS, rtol=0)


MODES = {
    "plain": (PAPER, {}),
    "flip": (replace(PAPER, shift_flipped=False), {"flip_test": True}),
    "flip_shift": (PAPER, {"flip_test": True}),
}


@pytest.mark.parametrize("mode", MODES)
def test_estimated_persons_equal_the_papers(mode):
    record, settings = MODES[mode]
    keypoints, scores = estimated(record, rules.NUM_FRAMES, len(rules.PERSON_BOXES), **settings)
    check_persons(keypoints, GOLDEN[f"keypoints_{mode}"])
    np.testing.assert_allclose(np.sort(scores), np.sort(GOLDEN[f"scores_{mode}"]), atol=1e-4)


CHANGES = {
    "channel order": {"record": {"channel_order": "RGB"}},
    "mean of BGR": {"record": {"mean": (0.406, 0.456, 0.485), "std": (0.225, 0.224, 0.229)}},
    "x1.25": {"record": {"box_padding": 1.2}},
    "(w, h)": {"record": {"input_size_wh": rules.NETWORK_WH[::-1]}},
    "half pixel": {"record": {"grid_alignment": "edges"}},
    "counted from 1": {"record": {"grid_alignment": "one_based"}},
    "column shift": {"record": {"shift_flipped": False}},
    "no flip test": {"settings": {"flip_test": False}},
    "dark": {"settings": {"decoding": "dark"}},
    "matlab-demo": {"settings": {"decoding": "matlab-demo"}},
    "quarter step": {"patch": (posebatch.pose.heatmaps, "QUARTER_STEP", 0.2)},
    "no quarter step": {"patch": (posebatch.pose.heatmaps, "QUARTER_STEP", 0.0)},
    "left and right": {"patch": (posebatch.models.networks.pose_network, "FLIP_ORDER", tuple(range(17)))},
}


@pytest.mark.parametrize("change", CHANGES)
def test_estimated_persons_differ_when_a_constant_changes(change, monkeypatch):
    record = replace(PAPER, **CHANGES[change].get("record", {}))
    settings = {"flip_test": True, **CHANGES[change].get("settings", {})}
    if "patch" in CHANGES[change]:
        monkeypatch.setattr(*CHANGES[change]["patch"])
    keypoints, _ = estimated(record, 1, 4, **settings)
    with pytest.raises(AssertionError):
        check_persons(keypoints, GOLDEN["keypoints_flip_shift"])
    apart = np.abs(keypoints - GOLDEN["keypoints_flip_shift"][: len(keypoints)])[..., :2]
    assert (apart > 10 * PIXELS).mean() > 0.05, "positions differ, not only scores"


def test_estimated_persons_equal_the_papers_for_the_subset_of_the_changes():
    keypoints, _ = estimated(PAPER, 1, 4, flip_test=True)
    check_persons(keypoints, GOLDEN["keypoints_flip_shift"])
