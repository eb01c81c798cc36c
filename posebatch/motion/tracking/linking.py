"""Who is who: the track of each person's row, once a video is complete.

Two linkers. ``global`` joins safe tracklets first and then chooses the best bridges over gaps, of the whole video at
once. ``greedy-oks`` goes frame by frame, as in Xiao et al. 2018.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import numpy as np

from posebatch.core.motion_settings import MotionSettings
from posebatch.motion.blocks import FrameBlock
from posebatch.motion.tracking.chunks import Chunk, chunks
from posebatch.motion.tracking.global_linking import GlobalLinker
from posebatch.motion.tracking.greedy_linking import GreedyLinker
from posebatch.motion.tracking.link_rules import LinkRules
from posebatch.motion.tracking.links import Links
from posebatch.motion.tracking.piece_table import LEAST_SECONDS, PieceTable, is_person


def link(blocks: Iterable[FrameBlock], settings: MotionSettings, size_wh: tuple[int, int], kpt_thr: float) -> Links:
    """Link the persons of a video to tracks.

    ``blocks`` are all processed frames. Tracks do not depend on where blocks end. ``size_wh`` is the displayed
    frame's size in pixels. Joints that score above ``kpt_thr`` count. Memory grows by a few bytes per row.

    Example::

        links = link(blocks, MotionSettings(), (1280, 720), kpt_thr=0.2)
        main = links.track_ids == 0
    """
    rules = LinkRules(settings.max_gap_seconds, kpt_thr, size_wh)
    linker = GreedyLinker(rules) if settings.linker == "greedy-oks" else GlobalLinker(rules)
    pieces, numbers, clock = PieceTable(), [np.zeros(0, np.int32)], _Clock()
    numbered = chain(chain.from_iterable(map(linker.add, chunks(blocks))), linker.rest())
    for chunk, number in numbered:
        pieces.add_rows(number, chunk.bbox_scores, chunk.frame_index[chunk.frame], chunk.time_s[chunk.frame])
        numbers.append(number.astype(np.int32))
        clock.add(chunk)
    first = pieces.chains(*linker.joined())
    tracks = pieces.summaries(first)
    kept = first == np.arange(len(first))
    if settings.linker == "global":
        kept &= is_person(tracks, clock.step_s, clock.step_s * clock.frames)
    ids = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
    return Links(ids[first][np.concatenate(numbers)], tracks.first_frame[kept], tracks.last_frame[kept])


class _Clock:
    """The mean time between processed frames."""

    def __init__(self) -> None:
        self._start_s: float | None = None
        self._end_s, self.frames = 0.0, 0

    def add(self, chunk: Chunk) -> None:
        """Count the frames of a chunk."""
        if self._start_s is None:
            self._start_s = float(chunk.time_s[0])
        self._end_s = float(chunk.time_s[-1])
        self.frames += len(chunk.time_s)

    @property
    def step_s(self) -> float:
        """Seconds, `LEAST_SECONDS` if there are not two frames."""
        if self._start_s is None or self.frames < 2:
            return LEAST_SECONDS
        return (self._end_s - self._start_s) / (self.frames - 1)
