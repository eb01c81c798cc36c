"""Bridges between tracklets: which finish and which start may be one person, and the best choice of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

from posebatch.motion.tracking.link_rules import LinkRules
from posebatch.motion.tracking.pose_similarity import paired_similarity
from posebatch.motion.tracking.track_ends import TrackEnds

PLACE_SPREAD: Final = 0.15
"""Standard deviation of a predicted place without a gap, in heights: partly hidden people have cut boxes."""


ACCELERATION: Final = 0.8
"""Standard deviation of what people accelerate over a gap, in heights per second squared: they walk at 0.8 and stop."""


SPEED_SPREAD: Final = 0.3
"""Standard deviation of a change of velocity without a gap, heights a second."""


LARGEST_TURN: Final = 4.0
"""Most that a change of velocity costs: people do turn around."""


SIZE_SPREAD: Final = 0.2
"""Standard deviation of the logarithm of sizes of one person at the two ends of a gap."""


PROPORTION_SPREAD: Final = 0.3
"""The same of bone lengths against each other, which perspective shortens."""


LOSS_COST: Final = 1.0
"""That a person is not found for a while costs this."""


LOSS_COST_S: Final = 1.0
"""And this for each second."""


POSE_MEMORY_S: Final = 0.3
"""Time in which poses become unlike."""


LARGEST_MOTION: Final = 9.0
"""Squared distance from the predicted place, in variances, from which nobody is the same person (3 sigma)."""


LARGEST_COST: Final = 15.0
"""A person who vanishes and another one who appears cost as much as a bridge of this cost."""


BRIDGES_PER_START: Final = 8


DENSE_NODES: Final = 2000


@dataclass(frozen=True)
class Bridges:
    """Possible bridges (k) over gaps."""

    finish: NDArray[np.int64]
    """(k,) piece that ends."""
    start: NDArray[np.int64]
    """(k,) piece that begins."""
    cost: NDArray[np.float64]
    """(k,) from 0, half the logarithm of odds or so: small where one person is likely."""

    def without(self, finish: NDArray[np.int64], start: NDArray[np.int64]) -> Bridges:
        """The bridges that neither begin at one of the pieces ``finish`` nor lead to one of ``start``."""
        free = ~np.isin(self.finish, finish) & ~np.isin(self.start, start)
        return Bridges(self.finish[free], self.start[free], self.cost[free])


def all_bridges(parts: list[Bridges]) -> Bridges:
    """The bridges of all parts of a video."""
    none = np.zeros(0, np.int64)
    return Bridges(
        np.concatenate([none, *(part.finish for part in parts)]),
        np.concatenate([none, *(part.start for part in parts)]),
        np.concatenate([np.zeros(0), *(part.cost for part in parts)]),
    )


def possible_bridges(finishes: TrackEnds, starts: TrackEnds, cuts: NDArray[np.int64], rules: LinkRules) -> Bridges:
    """The bridges from ``finishes`` to later ``starts`` that people can walk within the longest gap.

    No bridge leads over ``cuts`` (k,), the ascending orders of the frames that end a shot.
    """
    waited = starts.time_s[None] - finishes.lost_s[:, None]
    allowed = (finishes.order[:, None] < starts.order[None]) & (waited <= rules.max_gap_s + 1e-6)
    allowed &= np.searchsorted(cuts, finishes.order)[:, None] == np.searchsorted(cuts, starts.order)[None]
    first, second = np.nonzero(allowed)
    motion = _motion_cost(finishes, first, starts, second, rules.size_wh)
    near = motion <= LARGEST_MOTION
    first, second, motion = first[near], second[near], motion[near]
    cost = motion + _shape_cost(finishes, first, starts, second)
    cost += _pose_cost(finishes, first, starts, second, rules.kpt_thr)
    lost = waited[first, second].clip(0)
    cost += np.where(finishes.order[first] + 1 < starts.order[second], LOSS_COST, 0.0) + LOSS_COST_S * lost
    keep = cost < LARGEST_COST
    bridges = Bridges(finishes.piece[first[keep]], starts.piece[second[keep]], cost[keep])
    return _cheapest(bridges)


def best_bridges(bridges: Bridges) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The bridges that leave the least cost in all, each finish and each start used at most once.

    An end without a bridge costs `LARGEST_COST` per pair. Returns the pieces that end and those that follow them.
    """
    if not len(bridges.cost):
        return bridges.finish, bridges.start
    finishes, rows = np.unique(bridges.finish, return_inverse=True)
    starts, columns = np.unique(bridges.start, return_inverse=True)
    graph = coo_array((np.ones(len(rows)), (rows, columns + len(finishes))), shape=(len(finishes) + len(starts),) * 2)
    _, group = connected_components(graph, directed=False)
    by_group = np.argsort(group[rows], kind="stable")
    ends = np.flatnonzero(np.diff(group[rows][by_group])) + 1
    chosen: list[NDArray[np.intp]] = []
    for members in np.split(by_group, ends):
        chosen.append(members[_assignment(rows[members], columns[members], bridges.cost[members])])
    kept = np.sort(np.concatenate(chosen))
    return bridges.finish[kept], bridges.start[kept]


def _assignment(rows: NDArray[np.intp], columns: NDArray[np.intp], cost: NDArray[np.float64]) -> NDArray[np.intp]:
    """The edges (k,) of the assignment of least cost. An edge gains ``LARGEST_COST - cost``."""
    if len(cost) == 1:
        return np.zeros(1, np.intp)
    own_rows, row = np.unique(rows, return_inverse=True)
    own_columns, column = np.unique(columns, return_inverse=True)
    if len(own_rows) + len(own_columns) > DENSE_NODES:
        return _sparse_assignment(row, column, cost, (len(own_rows), len(own_columns)))
    gain = np.zeros((len(own_rows), len(own_columns)))
    edge = np.full(gain.shape, -1, np.intp)
    gain[row, column] = LARGEST_COST - cost
    edge[row, column] = np.arange(len(cost))
    picked = edge[linear_sum_assignment(gain, maximize=True)]
    return picked[picked >= 0]


def _sparse_assignment(
    row: NDArray[np.intp], column: NDArray[np.intp], cost: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.intp]:
    """The same for a large component. Each row may also take a column of its own, which stands for no bridge."""
    alone = np.arange(shape[0])
    weights = np.concatenate([cost + 1e-3, np.full(shape[0], LARGEST_COST + 1e-3)])
    matrix = coo_array(
        (weights, (np.append(row, alone), np.append(column, shape[1] + alone))), shape=(shape[0], sum(shape))
    ).tocsr()
    taken_rows, taken = min_weight_full_bipartite_matching(matrix)
    match = np.full(shape[0], -1)
    match[taken_rows] = taken
    return np.flatnonzero(match[row] == column)


def _motion_cost(
    finishes: TrackEnds,
    first: NDArray[np.intp],
    starts: TrackEnds,
    second: NDArray[np.intp],
    size_wh: tuple[int, int],
) -> NDArray[np.float64]:
    """Squared distance from the predicted place, in variances: mean of the predictions forwards and backwards.

    A person whose predicted place is outside of the picture has left it: infinite.
    """
    height = np.minimum(finishes.height[first], starts.height[second])
    seconds = starts.time_s[second] - finishes.time_s[first]
    offset = starts.centre[second] - finishes.centre[first]
    total = np.zeros(len(first))
    for ends, which, direction in ((finishes, first, 1), (starts, second, -1)):
        travelled = ends.velocity[which] * seconds[:, None]
        missed = (offset - travelled) / height[:, None]
        variance = PLACE_SPREAD**2 + ends.speed_variance[which] * seconds**2 + (ACCELERATION * seconds**2 / 2) ** 2
        total += (missed**2).sum(axis=1) / variance / 2
        place = ends.centre[which] + direction * travelled
        total[((place < 0) | (place > np.array(size_wh))).any(axis=1)] = np.inf
    turned = ((starts.velocity[second] - finishes.velocity[first]) ** 2).sum(axis=1) / height**2
    variance = finishes.speed_variance[first] + starts.speed_variance[second] + SPEED_SPREAD**2
    return total + np.minimum(turned / (variance + (ACCELERATION * seconds) ** 2), LARGEST_TURN)


def _shape_cost(
    finishes: TrackEnds, first: NDArray[np.intp], starts: TrackEnds, second: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Size and proportions. A box may be cut, so that a torso of the same length says as much as the same height."""
    height = np.log(finishes.height[first] / starts.height[second])
    bones = finishes.bones[first] - starts.bones[second]
    torso = np.where(np.isnan(bones[:, 0]), height, bones[:, 0])
    size = np.minimum(np.abs(height), np.abs(torso))
    limbs = bones[:, 1:] - torso[:, None]
    known = np.isfinite(limbs)
    spread = (np.where(known, limbs, 0.0) ** 2).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    cost: NDArray[np.float64] = (size / SIZE_SPREAD) ** 2 + spread / PROPORTION_SPREAD**2
    return cost


def _pose_cost(
    finishes: TrackEnds, first: NDArray[np.intp], starts: TrackEnds, second: NDArray[np.intp], kpt_thr: float
) -> NDArray[np.float64]:
    """How unlike the poses are at the same place. Long gaps make them unlike anyway."""
    centres = [(ends.box[:, :2] + ends.box[:, 2:]) / 2 for ends in (finishes, starts)]
    shift = centres[1][second] - centres[0][first]
    pose = finishes.pose[first].copy()
    pose[..., :2] += shift[:, None].astype(np.float32)
    box = finishes.box[first] + np.tile(shift, 2)
    similarity = paired_similarity(box, pose, starts.box[second], starts.pose[second], kpt_thr)
    memory = np.exp(-(starts.time_s[second] - finishes.time_s[first]) / POSE_MEMORY_S)
    return 3 * (1 - similarity) * memory


def _cheapest(bridges: Bridges) -> Bridges:
    """At most `BRIDGES_PER_START` bridges for each start, so that memory is bounded."""
    by_start = np.lexsort((bridges.finish, bridges.cost, bridges.start))
    start = bridges.start[by_start]
    first = np.searchsorted(start, start)
    kept = np.sort(by_start[np.arange(len(start)) - first < BRIDGES_PER_START])
    return Bridges(bridges.finish[kept], bridges.start[kept], bridges.cost[kept])
