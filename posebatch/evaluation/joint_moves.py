"""How far each joint moves from one network's poses to another's, and the frames in which they differ most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.frames import FramePoses
from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.evaluation.matching import Distances, MatchedPersons, match_persons

FAR: Final = 0.1
"""Joints farther than this from the old ones are counted, as a share of the person's height: about a hand."""


ALL_JOINTS: Final = "all joints"


@dataclass(frozen=True)
class FrameMoves:
    """One frame of one video, as two networks see it."""

    video: int
    """Number of the video."""
    position: int
    """Number of the frame among those of its video that are compared."""
    old: FramePoses
    new: FramePoses
    pairs: MatchedPersons
    """The old persons that the new network finds, too."""

    @classmethod
    def of(cls, video: int, position: int, old: FramePoses, new: FramePoses, kpt_thr: float) -> FrameMoves:
        """Compare two results for the same frame. Raises ``ValueError`` if it is not the same."""
        if old.record != new.record:
            raise ValueError(f"frames {old.record.frame_index} and {new.record.frame_index} are not the same")
        return cls(video, position, old, new, match_persons(old, new, kpt_thr))

    @cached_property
    def lost(self) -> NDArray[np.intp]:
        """Indices of the old persons that the new network does not find."""
        return np.setdiff1d(np.arange(len(self.old)), self.pairs.reference)

    @cached_property
    def added(self) -> NDArray[np.intp]:
        """Indices of the new persons that the old network does not find."""
        return np.setdiff1d(np.arange(len(self.new)), self.pairs.matched)

    @property
    def persons_changed(self) -> int:
        """Persons that only one of the networks finds."""
        return len(self.lost) + len(self.added)

    @cached_property
    def person_moves(self) -> NDArray[np.float64]:
        """(p,) mean distance of each pair's joints, as a share of the person's height."""
        moves: NDArray[np.float64] = np.nanmean(self.pairs.shares, axis=1) if len(self.pairs.matched) else np.zeros(0)
        return moves

    @property
    def largest_move(self) -> float:
        """The largest of `person_moves`; 0 without a pair."""
        return float(self.person_moves.max(initial=0.0))


@dataclass(frozen=True)
class JointMoves:
    """How far one joint moves, over all persons that both networks find."""

    joint: str
    count: int
    pixels: Distances
    heights: Distances
    """As shares of the person's height: of the box that the old network got."""
    far: float
    """Share of the joints that move more than `FAR`, 0..1; nan without a joint."""


def joint_moves(frames: Sequence[FrameMoves]) -> tuple[JointMoves, ...]:
    """A row for each joint, and the last for all of them. A joint counts where its old score is high enough."""
    empty = [np.zeros((0, len(KEYPOINT_NAMES)))]
    pixels = np.concatenate([*empty, *(frame.pairs.pixels for frame in frames)])
    shares = np.concatenate([*empty, *(frame.pairs.shares for frame in frames)])
    columns = [(name, pixels[:, i], shares[:, i]) for i, name in enumerate(KEYPOINT_NAMES)]
    return tuple(_row(*column) for column in [*columns, (ALL_JOINTS, pixels.ravel(), shares.ravel())])


def _row(name: str, pixels: NDArray[np.float64], shares: NDArray[np.float64]) -> JointMoves:
    counts = np.isfinite(pixels)
    shares = shares[counts]
    far = float((shares > FAR).mean()) if len(shares) else float("nan")
    return JointMoves(name, len(shares), Distances.of(pixels[counts]), Distances.of(shares), far)


def moved_most(frames: Sequence[FrameMoves], most: int) -> list[FrameMoves]:
    """The frames in which a person's joints move most, worst first, apart from each other."""
    return _worst_apart(frames, lambda frame: frame.largest_move, most)


def persons_differ(frames: Sequence[FrameMoves], most: int) -> list[FrameMoves]:
    """The frames in which most persons are found by one network alone, worst first, apart from each other."""
    return _worst_apart(frames, lambda frame: frame.persons_changed, most)


def _worst_apart(frames: Sequence[FrameMoves], how_much: Callable[[FrameMoves], float], most: int) -> list[FrameMoves]:
    """Frames that differ at all, worst first; of one video none nearer than a twentieth of its frames.

    Neighbours look the same.
    """
    lengths: dict[int, int] = {}
    for frame in frames:
        lengths[frame.video] = max(lengths.get(frame.video, 0), frame.position + 1)
    chosen: list[FrameMoves] = []
    for frame in sorted(frames, key=how_much, reverse=True):
        if len(chosen) == most or not how_much(frame):
            break
        apart = max(1, lengths[frame.video] // 20)
        if all(one.video != frame.video or abs(one.position - frame.position) >= apart for one in chosen):
            chosen.append(frame)
    return chosen
