"""Two networks, or presets, on the same videos: which joints move, who is found, and what each costs in time."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from posebatch.core.errors import InputError, SettingsError
from posebatch.core.options import nearest
from posebatch.core.presets import PRESETS
from posebatch.core.settings import Settings, settings_from
from posebatch.core.text_table import number_text, text_table
from posebatch.core.wording import counted
from posebatch.evaluation.joint_moves import ALL_JOINTS, FAR, FrameMoves, JointMoves, joint_moves
from posebatch.evaluation.setting_runs import SettingRun, run_setting
from posebatch.models.weights.names import REMOVED, known_names, resolve
from posebatch.run.preparation import weights_identity
from posebatch.storage.addresses import is_s3


@dataclass(frozen=True)
class ModelCost:
    """One side of the comparison."""

    name: str
    """As the user gave it."""
    detector: str
    pose: str
    persons: int
    frames_per_second: float
    """Of both networks with cropping and heatmap decoding, without decoding of the video."""


@dataclass(frozen=True)
class ModelComparison:
    """The new network against the old one."""

    videos: tuple[str, ...]
    """Addresses."""
    old: ModelCost
    new: ModelCost
    moves: tuple[FrameMoves, ...]
    """All frames, in the order of the videos."""
    joints: tuple[JointMoves, ...]
    """As `joint_moves` returns them."""
    kpt_thr: float
    """Joints are compared if the old network scores them above this."""

    @property
    def kept(self) -> int:
        """Old persons that the new network finds, too."""
        return sum(len(frame.pairs.matched) for frame in self.moves)

    @property
    def lost(self) -> int:
        """Old persons that the new network does not find."""
        return self.old.persons - self.kept

    @property
    def added(self) -> int:
        """New persons that the old network does not find."""
        return self.new.persons - self.kept

    @property
    def time_ratio(self) -> float:
        """Time that the new networks take, relative to the old ones."""
        return self.old.frames_per_second / self.new.frames_per_second

    @property
    def by_distance(self) -> tuple[JointMoves, ...]:
        """The joints that were compared, those first that move most."""
        seen = [row for row in self.joints if row.count and row.joint != ALL_JOINTS]
        return tuple(sorted(seen, key=lambda row: (row.heights.median, row.heights.p95), reverse=True))


def model_settings(old: str, new: str, given: Mapping[str, Any]) -> tuple[Settings, Settings]:
    """The settings of both sides. A side is a preset, or the name or file of a pose network.

    A pose network takes the detector, and the other settings, of the preset on the other side, else of the default
    preset. ``given``: other settings, for both. Raises `SettingsError` if a name is unknown or if both are the same,
    and `WeightsError` for a file that holds no pose network.
    """
    for name in (old, new):
        _check_name(name)
    preset = next((name for name in (old, new) if name in PRESETS), None)
    common = {} if preset is None else {"preset": preset}
    sides = [{"preset": name} if name in PRESETS else {**common, "pose": name} for name in (old, new)]
    old_settings, new_settings = (settings_from({**side, **given}, "command line") for side in sides)
    if _identity(old_settings) == _identity(new_settings):
        raise SettingsError(f"{old} and {new} are the same networks with the same settings: nothing can differ")
    return old_settings, new_settings


def compare_models(
    names: tuple[str, str],
    settings: tuple[Settings, Settings],
    videos: Sequence[str],
    stride: int = 1,
    most_frames: int | None = None,
    threads: int = 1,
) -> ModelComparison:
    """Run both sides over each video in turn, so that a busy hour slows both. ``videos``: paths or ``s3://`` addresses.

    ``most_frames`` limits the frames of each video. ``threads``: of the networks. Raises `InputError` if neither finds
    a person, and the errors of `run_setting`.
    """
    torch.set_num_threads(threads)
    endpoint_url = settings[0].selection.endpoint_url
    sides = [
        run_setting(name, side, videos, stride, most_frames, endpoint_url=endpoint_url)
        for name, side in zip(names, settings, strict=True)
    ]
    runs = [*zip(*sides, strict=True)]
    return comparison_of(names, settings, videos, [old for old, _ in runs], [new for _, new in runs])


def comparison_of(
    names: tuple[str, str],
    settings: tuple[Settings, Settings],
    videos: Sequence[str],
    old_runs: Sequence[SettingRun],
    new_runs: Sequence[SettingRun],
) -> ModelComparison:
    """The comparison of finished runs, one for each video. Raises `InputError` if neither found a person."""
    kpt_thr = settings[0].estimator.kpt_thr
    moves = tuple(
        FrameMoves.of(video, position, old, new, kpt_thr)
        for video, runs in enumerate(zip(old_runs, new_runs, strict=True))
        for position, (old, new) in enumerate(zip(runs[0].poses, runs[1].poses, strict=True))
    )
    if not any(len(frame.old) or len(frame.new) for frame in moves):
        raise InputError(
            f"neither {names[0]} nor {names[1]} found a person in {counted(len(moves), 'frame')} of "
            f"{counted(len(videos), 'video')}: take videos, or more --frames, with people"
        )
    sides = zip(names, settings, (old_runs, new_runs), strict=True)
    old, new = (_cost(name, side, functools.reduce(operator.add, runs)) for name, side, runs in sides)
    return ModelComparison(tuple(videos), old, new, moves, joint_moves(moves), kpt_thr)


def comparison_lines(comparison: ModelComparison) -> list[str]:
    """The comparison for a terminal."""
    old, new = comparison.old, comparison.new
    heads = ["joint", "compared", "median px", "p95 px", "median height", "p95 height", f"> {100 * FAR:g} %"]
    rows = [
        [
            row.joint,
            str(row.count),
            *(number_text(value, 1) for value in (row.pixels.median, row.pixels.p95)),
            *(number_text(100 * value, 1, " %") for value in (row.heights.median, row.heights.p95, row.far)),
        ]
        for row in comparison.joints
    ]
    return [
        *(f"{word} {side.name}: pose {side.pose}, detector {side.detector}" for word, side in _sides(comparison)),
        f"{counted(len(comparison.moves), 'frame')} of {counted(len(comparison.videos), 'video')}",
        "",
        *text_table(heads, rows).splitlines(),
        "",
        joints_sentence(comparison),
        persons_sentence(comparison),
        f"old {old.frames_per_second:.1f} frames/s, new {new.frames_per_second:.1f} frames/s in the networks: "
        f"{time_text(comparison)}",
    ]


def joints_sentence(comparison: ModelComparison) -> str:
    """Which joints move most."""
    if not comparison.by_distance:
        return "no person was found by both, so no joint can be compared"
    most = [row for row in comparison.by_distance[:3] if row.heights.most > 0]
    if not most:
        return "no joint moves"
    named = ", ".join(f"{row.joint} ({100 * row.heights.median:.1f} % of the height)" for row in most)
    return f"joints that move most, by the median: {named}"


def persons_sentence(comparison: ModelComparison) -> str:
    """Who is found by which."""
    return (
        f"{counted(comparison.old.persons, 'person')} by the old: {comparison.kept} kept, {comparison.lost} lost; "
        f"{comparison.added} added by the new"
    )


def time_text(comparison: ModelComparison) -> str:
    """What the new networks cost in time."""
    return f"the new take {comparison.time_ratio:.2f} times as long, in this one run"


def _sides(comparison: ModelComparison) -> tuple[tuple[str, ModelCost], tuple[str, ModelCost]]:
    return ("old", comparison.old), ("new", comparison.new)


def _check_name(name: str) -> None:
    """Raise `SettingsError` for a name that is neither a preset nor a network, with the nearest of both."""
    known = [*PRESETS, *known_names("pose")]
    looks_like_a_file = is_s3(name) or "/" in name or Path(name).suffix or Path(name).is_file()
    if name in known or looks_like_a_file:
        return
    if name in REMOVED:
        raise SettingsError(f"{name}: {REMOVED[name]}")
    raise SettingsError(
        f"{name!r} is neither a preset nor a pose network{nearest(name, known)}; `posebatch models` lists networks, "
        f"and presets are {', '.join(PRESETS)}"
    )


def _identity(settings: Settings) -> tuple[Any, ...]:
    """What determines the poses: weights, and the settings that presets change."""
    estimator = settings.estimator
    weights = [
        weights_identity("detector", estimator.detector_name, settings),
        weights_identity("pose", estimator.pose_name, settings),
    ]
    return (*weights, estimator.tiles, estimator.max_persons)


def _cost(name: str, settings: Settings, run: SettingRun) -> ModelCost:
    estimator = settings.estimator
    names = (resolve("detector", estimator.detector_name).name, resolve("pose", estimator.pose_name).name)
    return ModelCost(name, *names, sum(map(len, run.poses)), run.frames_per_second)
