"""The settings of a run: one typed tree from which flags, YAML keys, their documentation and the fingerprints come.

Every leaf is a field made with `option`, so its help text, choices and limits stand beside its type and default.
A flag is its field's name with dashes; a YAML key is the field's name, with dashes or underscores.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from posebatch.core.errors import SettingsError
from posebatch.core.options import Option, checked_value, nearest, option, unwrap
from posebatch.core.tiling import Grid

_EMBEDDED_PAIR: Final = ("ssdlite_mobilenet_v2_320", "simplebaseline_mobilenet_v2_256x192_relabelled")


PRESETS: Final[Mapping[str, tuple[str, str]]] = {
    "embedded": _EMBEDDED_PAIR,
    "balanced": ("fasterrcnn_mobilenet_v3_large_320_fpn", "mmpose_resnet50_256x192"),
    "accurate": ("fasterrcnn_resnet50_fpn_v2", "mmpose_resnet152_384x288"),
    "far": _EMBEDDED_PAIR,
}
"""Detector and pose network of each preset. Only those of ``embedded`` need no download; the others fetch once."""


PRESET_VALUES: Final[Mapping[str, Mapping[str, Any]]] = {"far": {"tiles": "2x4", "max_persons": 100}}
"""What a preset sets besides its networks, where nothing else is said; see `settings_from`."""


DETECT_SIZE: Final = "320"
"""The input size of the embedded detector that it is trained for."""


@dataclass(frozen=True)
class EstimatorSettings:
    """What turns a frame into persons. Every field shapes the published rows."""

    preset: str = option(
        "embedded",
        "a detector and a pose network that go together; far: the embedded ones, --tiles 2x4, --max-persons 100",
        choices=tuple(PRESETS),
    )
    detector: str | None = option(None, "person detector, instead of the preset's", metavar="NAME|FILE|s3://...")
    pose: str | None = option(None, "pose network, instead of the preset's", metavar="NAME|FILE|s3://...")
    detect_size: str = option(
        DETECT_SIZE,
        "side of the embedded detector's input, pixels; auto: 640 for frames whose longer side is over 640",
        choices=(DETECT_SIZE, "480", "640", "auto"),
    )
    tiles: str = option(
        "1x1",
        "rows x columns of overlapping tiles to detect in, besides the whole frame; 1x1: in it alone",
        metavar="RxC",
    )
    bbox_thr: float = option(0.3, "lowest score of a person's box", low=0, high=1)
    nms_thr: float = option(0.5, "boxes that overlap more than this (IoU) are one person", low=0, high=1)
    kpt_thr: float = option(0.2, "lowest score of a keypoint that counts in pose_score and is drawn", low=0, high=1)
    max_persons: int = option(20, "most persons in one frame, the best boxes first", low=1, high=300)
    detect_every: int = option(
        1, "run the detector on every N-th frame and follow persons in between; 1: on all", low=1, metavar="N"
    )
    oks_nms_thr: float = option(
        1.0, "persons whose poses are more alike than this (OKS) are one; 1: all stay", low=0, high=1
    )
    decoding: str = option(
        "quarter",
        "how joints are found in heatmaps; matlab-demo: also how boxes are cropped",
        choices=("quarter", "dark", "matlab-demo"),
    )
    flip_test: bool = option(False, "average with the mirrored crop: a little better, twice the work")
    precision: str = option(
        "auto",
        "number format of the networks; auto: bf16 on GPUs and processors with AMX, else fp32",
        choices=("auto", "fp32", "bf16", "fp16", "int8"),
    )

    def __post_init__(self) -> None:
        try:
            Grid.parse(self.tiles)
        except ValueError as error:
            raise SettingsError(f"tiles {error}") from error

    @property
    def grid(self) -> Grid:
        """The tiles in force."""
        return Grid.parse(self.tiles)

    @property
    def detector_name(self) -> str:
        """Name or path of the detector in force."""
        return self.detector or PRESETS[self.preset][0]

    @property
    def pose_name(self) -> str:
        """Name or path of the pose network in force."""
        return self.pose or PRESETS[self.preset][1]


@dataclass(frozen=True)
class SamplingSettings:
    """Which frames are processed. Every field shapes the published rows."""

    stride: int = option(1, "process every N-th frame", low=1, metavar="N")
    fps: float | None = option(
        None, "process the frames on screen F times a second, instead of --stride", low=1e-6, metavar="F"
    )


@dataclass(frozen=True)
class PreviewSettings:
    """Pictures beside the tables."""

    preview: tuple[str, ...] = option((), "annotated previews to make; repeatable", choices=("none", "gif"))
    preview_scale: float = option(0.35, "size of a preview, relative to the frame", low=0.01, high=1)

    @property
    def wanted(self) -> bool:
        """Whether a GIF is asked for."""
        return "gif" in self.preview


@dataclass(frozen=True)
class ExecutionSettings:
    """How the work is done. Nothing here changes a published row."""

    device: str = option("auto", "where the networks run", choices=("auto", "cpu", "cuda"))
    engine: str = option(
        "auto",
        "what runs the networks; auto: on the CPU OpenVINO where it is installed, else torch",
        choices=("auto", "torch", "openvino"),
    )
    decoder: str = option(
        "auto",
        "what decodes the video; auto: NVDEC where networks run on a GPU that has it",
        choices=("auto", "cpu", "nvdec"),
    )
    workers: str = option(
        "auto", "number of actors; auto: one for each CPU core, or two for each GPU", metavar="auto|N"
    )
    segment_seconds: float = option(
        20.0, "length of the pieces in which a long video is shared out", low=0.1, metavar="S"
    )


@dataclass(frozen=True)
class LimitSettings:
    """What a video, and the process that works on it, may take; beyond that it fails. Changes no published row."""

    max_pixels: int = option(150_000_000, "largest frame, width times height", low=1, metavar="N")
    max_streams: int = option(100, "most streams in one file", low=1, metavar="N")
    max_frames: int = option(50_000_000, "most frames in one video", low=1, metavar="N")
    max_hours: float = option(200.0, "longest video, in hours by its own clock", low=0.001, metavar="H")
    max_memory_gb: float = option(16.0, "most memory of one process that works on videos", low=0.1, metavar="GB")
    max_seconds_per_frame: float = option(
        600.0, "longest time for one frame, or one step without frames, before its process is ended", low=1, metavar="S"
    )
    max_idle_minutes: float = option(
        60.0, "longest time in which nothing at all moves on, before the run gives up", low=0.01, metavar="M"
    )


@dataclass(frozen=True)
class SelectionSettings:
    """Which videos are done, and what happens to those that are done or failed already."""

    include: tuple[str, ...] = option((), "only inputs whose path matches; repeatable", metavar="GLOB")
    exclude: tuple[str, ...] = option((), "no inputs whose path matches; repeatable", metavar="GLOB")
    limit: int | None = option(None, "do at most N videos in this run", low=1, metavar="N")
    on_existing: str = option(
        "skip", "what to do with a video whose result is there and up to date", choices=("skip", "overwrite", "error")
    )
    retry_failed: bool = option(False, "try videos again that failed before")
    max_attempts: int = option(
        3, "how often a video is tried when workers die or storage fails, over all runs", low=1, metavar="N"
    )
    wait: bool = option(False, "where another run has the output: wait for its end, instead of ending with exit code 2")
    endpoint_url: str | None = option(None, "S3-compatible store to talk to, instead of AWS", metavar="URL")


@dataclass(frozen=True)
class Settings:
    """Everything a run can be told."""

    estimator: EstimatorSettings = field(default_factory=EstimatorSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    preview: PreviewSettings = field(default_factory=PreviewSettings)
    execution: ExecutionSettings = field(default_factory=ExecutionSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    selection: SelectionSettings = field(default_factory=SelectionSettings)

    def __post_init__(self) -> None:
        if self.sampling.fps is not None and self.sampling.stride != 1:
            raise SettingsError(
                f"stride {self.sampling.stride} and fps {self.sampling.fps:g} both choose frames: give one of them"
            )
        workers = self.execution.workers
        if workers != "auto" and not (workers.isdecimal() and int(workers) > 0):
            raise SettingsError(f"workers must be auto or a whole number above 0, got {workers!r}")

    def flat(self) -> dict[str, Any]:
        """All leaves by name: what ``settings.yaml`` holds and ``--config`` reads."""
        return {name: getattr(getattr(self, group), name) for group, name in _leaves()}


def options() -> tuple[Option, ...]:
    """Every option, in the order of the tree."""
    return tuple(_iterate_options())


def settings_from(values: Mapping[str, Any], source: str = "settings") -> Settings:
    """Settings from flat values; what is not named is the preset's (`PRESET_VALUES`), or keeps its default.

    Keys may be written with dashes or underscores. Raises `SettingsError` for an unknown key (naming the nearest one),
    a value of the wrong type, outside its limits or not among its choices. ``source`` is named in the message.
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


def read_config(path: str) -> dict[str, Any]:
    """The flat values of a YAML settings file. Raises `SettingsError` when it cannot be read or is no mapping."""
    try:
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"--config {path}: cannot be read as YAML: {error}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise SettingsError(f"--config {path}: must hold 'name: value' lines, holds a {type(loaded).__name__}")
    return loaded


def _leaves() -> Iterator[tuple[str, str]]:
    for item in _iterate_options():
        yield item.group, item.name


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
