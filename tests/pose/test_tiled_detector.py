"""The detector at two scales, on a fake detector of bright rectangles and on the embedded network."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.pictures import DETECTOR_NAME, drawn_person, noise

from posebatch.core.errors import SettingsError
from posebatch.core.frames import Detections
from posebatch.core.tiling import Grid
from posebatch.models.networks.engines import Placement
from posebatch.models.networks.person_detector import DetectorSettings, load_detector
from posebatch.pose.pixels import JoinedPixels, RgbPixels
from posebatch.pose.tiled_detector import AUTO_LONGER_SIDE, TiledDetector, load_tiled


class BrightParts:
    """A detector with one box around the bright pixels of each frame; records its batches."""

    batch_size = 4
    record = SimpleNamespace(name="bright")

    def __init__(self):
        self.batches = []

    def detect(self, frames):
        self.batches.append((len(frames), frames.size_wh))
        assert 0 < len(frames) <= self.batch_size
        return [self._box(red) for red in frames.rgb()[:, 0]]

    def _box(self, red):
        y, x = (red > 128).nonzero(as_tuple=True)
        if not len(x):
            return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        edges = [x.min() - 0.5, y.min() - 0.5, x.max() + 0.5, y.max() + 0.5]
        return Detections(np.array([edges], np.float32), np.array([0.9], np.float32))


class Blind(BrightParts):
    """A detector without detections."""

    def detect(self, frames):
        return super().detect(RgbPixels(torch.zeros(len(frames), 8, 8, 3, dtype=torch.uint8)))


def with_rectangles(*boxes, width=400, height=300):
    """A frame (1, height, width, 3) uint8 with bright rectangles from x1, y1 up to x2, y2."""
    frame = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    for x1, y1, x2, y2 in boxes:
        frame[:, y1:y2, x1:x2] = 255
    return frame


def tiled(grid, fine=None, **settings):
    return TiledDetector(fine or BrightParts(), fine or BrightParts(), grid, DetectorSettings(**settings))


@pytest.mark.parametrize(
    "box", [(10, 10, 20, 40), (195, 140, 205, 160), (230, 20, 240, 60), (390, 290, 400, 300), (0, 100, 400, 150)]
)
def test_tiled_detector_finds_a_person_once_anywhere(box):
    """In one tile, where four tiles meet, in the overlap of two, in a corner, across all tiles."""
    (found,) = tiled(Grid(2, 2)).detect(RgbPixels(with_rectangles(box)))
    np.testing.assert_array_equal(found.bbox_xyxy, np.array([box], np.float32) - 0.5)


def test_tiled_detector_fills_batches_with_tiles_of_all_frames():
    fine = BrightParts()
    frames = RgbPixels(torch.cat([with_rectangles((10, 10, 20, 40)), with_rectangles(), with_rectangles()]))
    found = TiledDetector(BrightParts(), fine, Grid(2, 3), DetectorSettings()).detect(frames)
    assert [len(detections) for detections in found] == [1, 0, 0]
    assert [size for size, _ in fine.batches] == [4, 4, 4, 4, 2]
    assert len({shape for _, shape in fine.batches}) == 1


def test_tiled_detector_accepts_no_frames():
    assert tiled(Grid(2, 2)).detect(RgbPixels(with_rectangles()[:0])) == []


def test_tiled_detector_counts_persons_left_out():
    boxes = [(10, 10, 20, 40), (380, 10, 390, 40), (10, 250, 20, 290)]
    detector = TiledDetector(Blind(), BrightParts(), Grid(2, 2), DetectorSettings(max_persons=2))
    (found,) = detector.detect(RgbPixels(with_rectangles(*boxes)))
    assert (len(found), found.left_out) == (2, 1)


def test_tiled_detector_uses_only_the_overview_for_small_frames():
    fine = BrightParts()
    detector = TiledDetector(BrightParts(), fine, Grid(1, 1), DetectorSettings(), AUTO_LONGER_SIDE)
    for width, uses_fine in ((AUTO_LONGER_SIDE, False), (AUTO_LONGER_SIDE + 1, True)):
        (found,) = detector.detect(RgbPixels(with_rectangles((10, 10, 20, 40), width=width)))
        assert len(found) == 1
        assert bool(fine.batches) is uses_fine


def test_load_tiled_gives_the_plain_detector_without_tiles():
    assert not isinstance(load_tiled(DETECTOR_NAME, DetectorSettings(), Grid(1, 1), "320"), TiledDetector)


def test_load_tiled_refuses_an_unsupported_size_before_fetching_weights():
    with pytest.raises(SettingsError, match="--detect-size auto: ssdlite320_mobilenet_v3_large chooses its own"):
        load_tiled("ssdlite320_mobilenet_v3_large", DetectorSettings(), Grid(2, 2), "auto")


@pytest.mark.parametrize(
    ("grid", "size", "engine"),
    [
        (Grid(2, 2), "320", "torch"),
        (Grid(1, 1), "640", "torch"),
        (Grid(2, 1), "480", "torch"),
        pytest.param(Grid(2, 1), "480", "openvino", marks=pytest.mark.slow),
    ],
)
def test_tiled_network_finds_a_small_person_independently_of_other_frames(grid, size, engine):
    """A person 58 pixels tall in 640 x 480 has 39 pixels in the overview, and 78 in the input of the fine detector."""
    if engine == "openvino":
        pytest.importorskip("openvino")
    settings = DetectorSettings(placement=Placement(engine=engine))
    frame = torch.full((1, 480, 640, 3), 150, dtype=torch.uint8)
    frame[:, 300:368, 100:191] = drawn_person(68, 91)
    detector = load_tiled(DETECTOR_NAME, settings, grid, size)
    together = detector.detect(RgbPixels(torch.cat([frame, noise(3, 480, 640)])))
    (alone,) = detector.detect(RgbPixels(frame))
    assert len(load_detector(DETECTOR_NAME, settings).detect(RgbPixels(frame))[0]) <= len(alone) == 1
    x1, y1, x2, y2 = alone.bbox_xyxy[0]
    assert (y1, y2) == pytest.approx((307, 365), abs=8)
    assert (x1 + x2) / 2 == pytest.approx(145, abs=5)
    np.testing.assert_allclose(together[0].bbox_xyxy, alone.bbox_xyxy, atol=0.01)
    joined = JoinedPixels([RgbPixels(noise(1, 480, 640)), RgbPixels(frame), RgbPixels(noise(2, 480, 640, seed=1))])
    np.testing.assert_allclose(detector.detect(joined)[1].bbox_xyxy, alone.bbox_xyxy, atol=0.01)


def test_tiled_network_in_8_bits_supports_another_size():
    pytest.importorskip("openvino")
    settings = DetectorSettings(placement=Placement("cpu", "int8", "openvino"))
    frame = torch.full((1, 480, 640, 3), 150, dtype=torch.uint8)
    frame[:, 300:368, 100:191] = drawn_person(68, 91)
    (found,) = load_tiled(DETECTOR_NAME, settings, Grid(1, 1), "640").detect(RgbPixels(frame))
    assert len(found) == 1
    assert found.bbox_xyxy[0, 1] == pytest.approx(307, abs=8)
