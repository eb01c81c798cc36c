"""The settings of a run: one typed tree that defines flags, YAML keys, their documentation and the fingerprints.

Each leaf is a field made with `option`, which holds its default, help text, choices and limits. A flag is the name of
the field with dashes. A YAML key is the name of the field with dashes or underscores.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from posebatch.core.errors import SettingsError
from posebatch.core.execution_settings import ExecutionSettings, LimitSettings
from posebatch.core.motion_settings import MotionSettings
from posebatch.core.night_settings import NightSettings
from posebatch.core.options import Option, checked_value, nearest, option, unwrap
from posebatch.core.presets import PRESET_VALUES, PRESETS
from posebatch.core.preview_settings import NEEDS_TRACKS, PreviewSettings
from posebatch.core.selection_settings import SelectionSettings
from posebatch.core.similarity import OKS_NMS_THR
from posebatch.core.tiling import Grid

DETECT_SIZE: Final = "320"
"""Input size for which the embedded detector was trained, pixels."""

RECOVERY_FRAMES: Final = 24
"""With ``recover_flow``, least length of a group of frames. No person is carried from group to group."""


@dataclass(frozen=True)
class EstimatorSettings:
    """How persons are estimated in a frame. Every field changes the published rows."""

    preset: str = option(
        "embedded",
        "detector and pose network; fast: a smaller pose network; far: those of embedded with --tiles 2x4 "
        "--max-persons 100, for small people",
        choices=tuple(PRESETS),
    )
    detector: str | None = option(None, "person detector to use instead of the preset's", metavar="NAME|FILE|s3://...")
    pose: str | None = option(None, "pose network to use instead of the preset's", metavar="NAME|FILE|s3://...")
    detect_size: str = option(
        DETECT_SIZE,
        "input size of the embedded detector in pixels; auto: 640 if the longer side of the frame is over 640",
        choices=(DETECT_SIZE, "480", "640", "auto"),
    )
    tiles: str = option(
        "1x1",
        "rows x columns of overlapping tiles in which to detect, besides the whole frame; 1x1: no tiles",
        metavar="RxC",
    )
    bbox_thr: float = option(0.3, "minimum score of a person's box", low=0, high=1)
    nms_thr: float = option(0.5, "boxes that overlap by more than this IoU are the same person", low=0, high=1)
    kpt_thr: float = option(0.2, "minimum score of a keypoint to count in pose_score, tracks and motion", low=0, high=1)
    max_persons: int = option(20, "maximum persons per frame; those with the best boxes are kept", low=1, high=300)
    detect_every: int = option(
        1, "run the detector on every N-th frame and follow persons in between; 1: on every frame", low=1, metavar="N"
    )
    recover_flow: bool = option(
        False,
        "look for persons whom the detector misses where optical flow carries them from the frame before; needs the "
        "extra flow",
    )
    oks_nms_thr: float | None = option(
        None,
        f"poses more similar than this OKS are the same person; 1: keep all; without it {OKS_NMS_THR} for new rows, "
        "and videos published before this default stay as they are",
        low=0,
        high=1,
    )
    decoding: str = option(
        "quarter",
        "how keypoints are read from heatmaps; matlab-demo: also changes how boxes are cropped",
        choices=("quarter", "dark", "matlab-demo"),
    )
    flip_test: bool = option(False, "average with the mirrored image: slightly more accurate, twice the work")
    precision: str = option(
        "auto",
        "number format of the networks; auto: bf16 on GPUs and on CPUs with AMX, else fp32",
        choices=("auto", "fp32", "bf16", "fp16", "int8"),
    )

    def __post_init__(self) -> None:
        try:
            Grid.parse(self.tiles)
        except ValueError as error:
            raise SettingsError(f"tiles {error}") from error

    @property
    def grid(self) -> Grid:
        """The tiles in which to detect."""
        return Grid.parse(self.tiles)

    @property
    def group_frames(self) -> int:
        """Length of the groups of frames within which persons are followed or recovered: a multiple of
        ``detect_every``, counted from frame 0 of the stream. A frame depends on its group alone."""
        if not self.recover_flow:
            return self.detect_every
        return -(-RECOVERY_FRAMES // self.detect_every) * self.detect_every

    @property
    def same_person_oks(self) -> float:
        """The OKS above which two poses are the same person: the given threshold, or `OKS_NMS_THR`."""
        return OKS_NMS_THR if self.oks_nms_thr is None else self.oks_nms_thr

    @property
    def detector_name(self) -> str:
        """Name or path of the detector: the chosen one, or the preset's."""
        return self.detector or PRESETS[self.preset][0]

    @property
    def pose_name(self) -> str:
        """Name or path of the pose network: the chosen one, or the preset's."""
        return self.pose or PRESETS[self.preset][1]


@dataclass(frozen=True)
class SamplingSettings:
    """Which frames are processed. Every field changes the published rows."""

    stride: int = option(1, "process every N-th frame", low=1, metavar="N")
    fps: float | None = option(None, "process F frames per second of video, instead of --stride", low=1e-6, metavar="F")
    video_track: str = option(
        "default",
        "track to process in a file with several: a number as `videos.tracks_in_file` lists it, the largest, or the "
        "one that players show",
        metavar="N|largest|default",
    )


@dataclass(frozen=True)
class Settings:
    """All settings of a run."""

    estimator: EstimatorSettings = field(default_factory=EstimatorSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    motion: MotionSettings = field(default_factory=MotionSettings)
    preview: PreviewSettings = field(default_factory=PreviewSettings)
    execution: ExecutionSettings = field(default_factory=ExecutionSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    night: NightSettings = field(default_factory=NightSettings)

    def __post_init__(self) -> None:
        if self.sampling.fps is not None and self.sampling.stride != 1:
            raise SettingsError(
                f"stride {self.sampling.stride} and fps {self.sampling.fps:g} both choose frames: give one of them"
            )
        track = self.sampling.video_track
        if track not in ("default", "largest") and not track.isdecimal():
            raise SettingsError(f"video_track must be default, largest or the number of a track, got {track!r}")
        workers = self.execution.workers
        if workers != "auto" and not (workers.isdecimal() and int(workers) > 0):
            raise SettingsError(f"workers must be auto or a whole number above 0, got {workers!r}")
        if not self.motion.track and (self.preview.color_by == "track" or self.preview.needs_tracks):
            raise SettingsError(NEEDS_TRACKS)

    @property
    def colors_by_track(self) -> bool:
        """Whether previews give each person one colour: as chosen, else if there are tracks."""
        return self.motion.track if self.preview.color_by is None else self.preview.color_by == "track"

    def flat(self) -> dict[str, Any]:
        """All values by name, as ``settings.yaml`` holds and ``--config`` reads them."""
        return {item.name: getattr(getattr(self, item.group), item.name) for item in _iterate_options()}


def options() -> tuple[Option, ...]:
    """All options, in the order of the tree."""
    return tuple(_iterate_options())


def settings_from(values: Mapping[str, Any], source: str = "settings") -> Settings:
    """Make settings from flat values. Missing ones are the preset's (`PRESET_VALUES`) or the defaults.

    Keys have dashes or underscores. Raises `SettingsError`, which names ``source``, for an unknown key (with the
    nearest known one), and for a value of the wrong type, beyond its limits or not among its choices.

    Example::

        settings = settings_from({"preset": "balanced", "stride": 2})
    """
    known = {item.name: item for item in options()}
    groups: dict[str, dict[str, Any]] = {group.name: {} for group in dataclasses.fields(Settings)}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise SettingsError(f"{source}: unknown setting {key!r}{nearest(name, known)}")
        groups[known[name].group][name] = checked_value(known[name], value, source)
    for name, value in PRESET_VALUES.get(groups["estimator"].get("preset", ""), {}).items():
        groups[known[name].group].setdefault(name, value)
    hints = typing.get_type_hints(Settings)
    return Settings(**{group: hints[group](**chosen) for group, chosen in groups.items()})


def _iterate_options() -> Iterator[Option]:
    for group, group_type in typing.get_type_hints(Settings).items():
        hints = typing.get_type_hints(group_type)
        for leaf in dataclasses.fields(group_type):
            value_type, optional, repeatable = unwrap(hints[leaf.name])
            meta = leaf.metadata
            yield Option(
                group,
                leaf.name,
                leaf.default,
                value_type,
                optional,
                repeatable,
                meta["help"],
                meta["choices"],
                meta["low"],
                meta["high"],
                meta["metavar"],
            )
