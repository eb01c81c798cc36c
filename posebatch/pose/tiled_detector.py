"""Any person detector at two scales: an overview of the frame, and overlapping tiles or a larger input for the small.

The overview is the whole frame at the size for which the detector is made, as it runs without tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from posebatch.core.frames import Detections
from posebatch.core.tiling import Grid, TileBoxes, in_frame, merge, tiles_of
from posebatch.models.networks.input_size import check_detect_size
from posebatch.models.networks.person_detector import DetectorSettings, PersonDetector, load_detector
from posebatch.models.networks.pixels import Pixels
from posebatch.models.networks.ssdlite import INPUT_SIZE
from posebatch.models.weights.names import resolve
from posebatch.pose.pixels import JoinedPixels

AUTO: Final = "auto"


AUTO_INPUT_SIZE: Final = 640
"""Pixels; what ``auto`` takes besides the overview."""


AUTO_LONGER_SIDE: Final = 640
"""Pixels. Where a frame's longer side is larger, ``auto`` takes the larger input."""


MOST_COMPARED: Final = 300
"""Persons in one tile, or in the overview, that are compared with those of the others."""


WHOLE: Final = Grid(1, 1)


def load_tiled(name_or_path: str, settings: DetectorSettings, grid: Grid, detect_size: str) -> PersonDetector:
    """A detector ready to run on tiles, at an input size such as ``640`` or ``auto``, or plain where neither is wanted.

    Raises `WeightsError` as `load_detector` does, and `SettingsError` for a size that the detector does not take.
    """
    record = resolve("detector", name_or_path)
    check_detect_size(detect_size, name_or_path, record.architecture)
    auto = detect_size == AUTO
    size = AUTO_INPUT_SIZE if auto else int(detect_size)
    if grid == WHOLE and size == INPUT_SIZE:
        return load_detector(name_or_path, settings)
    inclusive = replace(settings, max_persons=MOST_COMPARED)
    fine = load_detector(name_or_path, replace(inclusive, input_size=size))
    overview = fine if size == INPUT_SIZE else load_detector(name_or_path, inclusive)
    return TiledDetector(overview, fine, grid, settings, AUTO_LONGER_SIDE if auto else 0)


class TiledDetector:
    """A `PersonDetector` of two others, one for the overview and a fine one for the tiles; both should be inclusive.

    The fine one gets the tiles of all frames of a call one after the other, in full batches. What comes of a frame
    depends on nothing but the frame. Frames whose longer side is at most ``plain_up_to`` get the overview's persons
    without a grid, and with one are given to the overview's detector tile by tile.
    """

    def __init__(
        self,
        overview: PersonDetector,
        fine: PersonDetector,
        grid: Grid,
        settings: DetectorSettings,
        plain_up_to: int = 0,
    ) -> None:
        self.record, self._overview, self._fine, self._grid = overview.record, overview, fine, grid
        self._settings, self._plain_up_to = settings, plain_up_to

    @property
    def batch_size(self) -> int:
        """See `PersonDetector.batch_size`."""
        return self._overview.batch_size

    def detect(self, frames: Pixels) -> list[Detections]:
        """See `PersonDetector.detect`."""
        n, size_wh = len(frames), frames.size_wh
        if n == 0:
            return []
        overviews = self._overview.detect(frames)
        fine = self._fine if max(size_wh) > self._plain_up_to else self._overview
        if fine is self._overview and self._grid == WHOLE:
            return [self._merged([], overview, size_wh) for overview in overviews]
        tiles = tiles_of(size_wh, self._grid)
        found = _in_batches(fine, JoinedPixels([frames.cut(tile) for tile in tiles]))
        boxes = [in_frame(next(found), tile, size_wh) for tile in tiles for _ in range(n)]
        return [self._merged(boxes[number::n], overview, size_wh) for number, overview in enumerate(overviews)]

    def _merged(self, parts: list[TileBoxes], overview: Detections, size_wh: tuple[int, int]) -> Detections:
        return merge(parts, overview, size_wh, self._settings.nms_thr, self._settings.max_persons)


def _in_batches(detector: PersonDetector, pictures: Pixels) -> Iterator[Detections]:
    for start in range(0, len(pictures), detector.batch_size):
        yield from detector.detect(pictures[start : start + detector.batch_size])
