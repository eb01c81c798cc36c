"""Single frames of a source video at given times."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.errors import PosebatchError
from posebatch.storage.open import open_newest
from posebatch.video.frame_images import FrameFormat
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder

SEGMENT_SECONDS: Final = 10.0
"""Only segments of about this length that contain a wanted time are decoded."""


BATCH_FRAMES: Final = 4


@dataclass(frozen=True)
class SourceFrame:
    """A frame of a video."""

    image: NDArray[np.uint8]
    """(height, width, 3) RGB, as displayed."""
    scale: float
    """Pixels of ``image`` per pixel of the displayed frame."""


def frames_at(
    address: str, times: Sequence[float], max_height: int, endpoint_url: str | None = None
) -> list[SourceFrame] | None:
    """The frames that a video shows at ``times``, seconds; None if the video cannot be read or decoded any more."""
    try:
        return _frames_at(address, times, max_height, endpoint_url)
    except PosebatchError:  # the archive may be elsewhere by now; the page does without its pixels
        return None


def _frames_at(
    address: str, times: Sequence[float], max_height: int, endpoint_url: str | None
) -> list[SourceFrame] | None:
    best: dict[float, tuple[float, SourceFrame]] = {}
    with open_newest(address, endpoint_url) as file:
        plan = probe(file, address, SEGMENT_SECONDS)
        info = plan.info
        scale = min(1.0, max_height / info.height)
        options = DecodeOptions(batch_frames=BATCH_FRAMES, frame_format=FrameFormat(scale=scale))
        for segment in plan.segments:
            begin, end = (
                bound if tick is None else float(tick * info.time_base) + slack
                for tick, bound, slack in ((segment.start_dts, -np.inf, -1.0), (segment.end_dts, np.inf, 1.0))
            )
            if not any(begin <= time_s <= end for time_s in times):
                continue
            with closing(iter(SegmentDecoder(file, address, segment, info, options))) as batches:
                for batch in batches:
                    assert isinstance(batch.images, np.ndarray)
                    decoded = (record for record in batch.records if record.status == "ok")
                    for record, image in zip(decoded, batch.images, strict=True):
                        shown_s = float(record.pts * info.time_base)
                        for time_s in times:
                            if time_s not in best or abs(shown_s - time_s) < best[time_s][0]:
                                best[time_s] = (abs(shown_s - time_s), SourceFrame(image, scale))
    return [best[time_s][1] for time_s in times] if len(best) == len(set(times)) else None
