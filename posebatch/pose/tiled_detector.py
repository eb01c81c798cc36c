"""A person detector at two scales: an overview of the frame, and tiles or a larger input for small persons.

The overview is the whole frame at the input size of the detector's training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from typing_extensions import override

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
"""Input size that ``auto`` uses in addition to the overview, pixels."""


AUTO_LONGER_SIDE: Final = 640
"""``auto`` uses the larger input for frames whose longer side exceeds this, pixels."""


MOST_COMPARED: Final = 300
"""Most persons of one tile, or of the overview, that enter the merging."""


WHOLE: Final = Grid(1, 1)
"""No tiles."""


def load_tiled(name_or_path: str, settings: DetectorSettings, grid: Grid, detect_size: str) -> PersonDetector:
    """Load a detector for a grid of tiles and an input size such as ``640`` or ``auto``; a plain one if it needs
    neither.

    Raises `WeightsError` as `load_detector` does, and `SettingsError` for a size that the detector does not support.
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


class TiledDetector(PersonDetector):
    """Merges the persons of two detectors: one for the overview, and a fine one for the tiles.

    Both detectors should keep many persons (`MOST_COMPARED`), because the limit of the settings applies after merging.
    The fine detector gets the tiles of all frames of a call in full batches. The result of a frame depends on that
    frame alone. For frames whose longer side is at most ``plain_up_to`` pixels, the overview's detector serves as the
    fine one; without a grid such frames get the overview's persons only.
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
    @override
    def batch_size(self) -> int:
        return self._overview.batch_size

    @override
    def detect(self, frames: Pixels) -> list[Detections]:
        n, size_wh = len(frames), frames.size_wh
        if n == 0:
            return []
        overviews = self._overview.detect(frames)
        fine = self._fine if max(size_wh) > self._plain_up_to else self._overview
        if fine is self._overview and self._grid == WHOLE:
            return [self._merged([], overview, size_wh) for overview in overviews]
        tiles = tiles_of(size_wh, self._grid)
        detections = _detect_in_batches(fine, JoinedPixels([frames.cut(tile) for tile in tiles]))
        boxes = [in_frame(next(detections), tile, size_wh) for tile in tiles for _ in range(n)]
        return [self._merged(boxes[number::n], overview, size_wh) for number, overview in enumerate(overviews)]

    def _merged(self, parts: list[TileBoxes], overview: Detections, size_wh: tuple[int, int]) -> Detections:
        return merge(parts, overview, size_wh, self._settings.nms_thr, self._settings.max_persons)


def _detect_in_batches(detector: PersonDetector, frames: Pixels) -> Iterator[Detections]:
    for start in range(0, len(frames), detector.batch_size):
        yield from detector.detect(frames[start : start + detector.batch_size])
