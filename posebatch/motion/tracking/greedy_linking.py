"""The linker ``greedy-oks``: frame by frame, the most similar pair first, as in Xiao et al. 2018 (sections 3, 4.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.similarity import greedy_pairs
from posebatch.motion.tracking.chunks import Chunk
from posebatch.motion.tracking.link_rules import LinkRules
from posebatch.motion.tracking.pose_similarity import paired_oks_or_iou

LEAST_SIMILARITY: Final = 0.3


class GreedyLinker:
    """Links each frame's persons to the tracks whose last person was found within the longest gap.

    The similarity is OKS between the person and the track's last one, without motion, or IoU of the boxes where fewer
    than `posebatch.motion.tracking.pose_similarity.LEAST_JOINTS` joints are seen in both.
    """

    def __init__(self, rules: LinkRules) -> None:
        self._rules = rules
        self._tracks = 0
        self._number = np.zeros(0, np.int64)
        self._lost_s = np.zeros(0)
        self._boxes = np.zeros((0, 4))
        self._poses = np.zeros((0, 17, 3), np.float32)

    def add(self, chunk: Chunk) -> Iterator[tuple[Chunk, NDArray[np.int64]]]:
        """Give the next chunk. Yields it and the tracks of its rows (n,)."""
        tracks = np.zeros(len(chunk.frame), np.int64)
        bounds = np.searchsorted(chunk.frame, np.arange(len(chunk.time_s) + 1))
        for frame, time_s in enumerate(chunk.time_s.tolist()):
            self._lost_s[np.isposinf(self._lost_s)] = time_s
            rows = slice(bounds[frame], bounds[frame + 1])
            tracks[rows] = self._link_frame(chunk.bbox_xyxy[rows], chunk.keypoints[rows], time_s)
        yield chunk, tracks

    def rest(self) -> Iterator[tuple[Chunk, NDArray[np.int64]]]:
        """Nothing is left."""
        return iter(())

    def joined(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """No joints: tracks are whole."""
        none = np.zeros(0, np.int64)
        return none, none

    def _link_frame(self, boxes: NDArray[np.float64], poses: NDArray[np.float32], time_s: float) -> NDArray[np.int64]:
        recent = time_s - self._lost_s <= self._rules.max_gap_s + 1e-6
        similarity = paired_oks_or_iou(
            boxes[:, None], poses[:, None], self._boxes[recent][None], self._poses[recent][None], self._rules.kpt_thr
        )
        pairs = greedy_pairs(similarity, LEAST_SIMILARITY) if similarity.size else [None] * len(boxes)
        known = self._number[recent]
        numbers = np.zeros(len(boxes), np.int64)
        for row, pair in enumerate(pairs):
            if pair is None:
                numbers[row], self._tracks = self._tracks, self._tracks + 1
            else:
                numbers[row] = known[pair]
        waiting = recent & ~np.isin(self._number, numbers)
        self._number = np.append(self._number[waiting], numbers)
        self._lost_s = np.append(self._lost_s[waiting], np.full(len(boxes), np.inf))
        self._boxes = np.concatenate([self._boxes[waiting], boxes])
        self._poses = np.concatenate([self._poses[waiting], poses])
        return numbers
