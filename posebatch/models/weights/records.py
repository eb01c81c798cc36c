"""Records of weight files: architecture, preprocessing and origin of the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

from safetensors import SafetensorError, safe_open

from posebatch.core.errors import WeightsError
from posebatch.core.images import GridAlignment
from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.models.weights.cache import sha256_of
from posebatch.models.weights.published import TORCHVISION_DETECTORS

Kind = Literal["pose", "detector"]


FORMAT_VERSION: Final = 1
"""Version of the record in the header of a file."""


METADATA_KEY: Final = "posebatch"
"""Key of the record, as JSON, in the header of a file."""


OPTIONAL_FIELDS: Final = frozenset({"score_calibration"})
"""Fields of a record that are left out where they are empty, so that files from before them stay the same."""


POSE_ARCHITECTURES: Final = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "mobilenet_v2",
    "mobilenet_v2_d128",
    "mobilenet_v2_1280",
    "mobilenet_v2_w175_d128_centred",
)
"""Backbones of SimpleBaseline. ``w175``: a backbone of 1.75 times as many channels. ``d128``: deconvolutions of 128
channels instead of the paper's 256. ``1280``: with MobileNetV2's last convolution, of 1280 channels. ``centred``: with
`posebatch.models.networks.pose_resnet.RightBottomPadding` in the last convolution of stride 2."""


SSDLITE_ARCHITECTURES: Final = ("ssdlite_mobilenet_v2", "ssdlite_mobilenet_v2_fpn")
"""Detectors of `posebatch.models.networks.ssdlite`; ``fpn``: with a top-down path."""


DETECTOR_ARCHITECTURES: Final = (*SSDLITE_ARCHITECTURES, *TORCHVISION_DETECTORS)


IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)


IMAGENET_STD: Final = (0.229, 0.224, 0.225)
"""For values in 0..1, in the order RGB. The paper's code applies this order to BGR images too."""


PAPER_PREPROCESSING: Final[Mapping[str, Any]] = {
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
    "box_padding": 1.25,
    "grid_alignment": "origin",
    "shift_flipped": True,
    "keypoint_names": KEYPOINT_NAMES,
}
"""Fields of `PoseRecord` that are equal for the paper's code and mmpose."""


class _Identified:
    """The identity of a record."""

    name: str
    source: str
    sha256: str

    @property
    def identity(self) -> str:
        """The name with the sha256, or with the published file name that holds a part of it.

        Equal identities mean equal weights.
        """
        return f"{self.name}@{self.sha256 or self.source.rsplit('/', 1)[-1]}"


@dataclass(frozen=True)
class PoseRecord(_Identified):
    """Architecture, preprocessing and origin of the weights of a pose network."""

    name: str
    architecture: str
    """One of `POSE_ARCHITECTURES`."""
    input_size_wh: tuple[int, int]
    """Width and height of the crop, pixels; multiples of 32."""
    mean: tuple[float, float, float]
    """Subtracted from values in 0..1, in ``channel_order``."""
    std: tuple[float, float, float]
    channel_order: Literal["RGB", "BGR"]
    box_padding: float
    """Size of the crop relative to the person's box after widening to the input's aspect."""
    grid_alignment: GridAlignment
    """Alignment of crop and heatmap in the network's training; see `posebatch.pose.crops.grid_to_frame`."""
    shift_flipped: bool
    """Whether the flip test shifts the mirrored map one column right (``SHIFT_HEATMAP`` in the paper's code).

    True for weights trained with heatmap column c on input column 4c, where mirroring shifts the map by 3/4 column.
    False for weights trained with both grids aligned at their edges.
    """
    keypoint_names: tuple[str, ...]
    """Order of the heatmaps."""
    licence: str
    source: str
    """Origin of the initial weights; for published ones, the URL of the weight file."""
    training: str
    accuracy: Mapping[str, float | str]
    """Measured figures in 0..1, and the data of the measurement."""
    score_calibration: tuple[tuple[float, float], ...] = ()
    """Knots (peak of a heatmap, published score), both rising; straight lines between them. Empty: peaks are published.

    See `posebatch.pose.score_calibration`. Files without a calibration do not have the field."""
    sha256: str = ""
    """Hash of the weight file, 64 hexadecimal digits; empty before it is written, and for published files whose name
    holds a part of the hash."""

    def __post_init__(self) -> None:
        _check_architecture(self.architecture, POSE_ARCHITECTURES)
        _check_preprocessing(self.mean, self.std, self.channel_order)
        if self.grid_alignment not in get_args(GridAlignment):
            known = ", ".join(get_args(GridAlignment))
            raise ValueError(f"grid_alignment must be one of {known}, got {self.grid_alignment!r}")
        if len(self.input_size_wh) != 2 or any(side <= 0 or side % 32 for side in self.input_size_wh):
            raise ValueError(f"input_size_wh must be two multiples of 32, got {self.input_size_wh}")
        if self.keypoint_names != KEYPOINT_NAMES:
            raise ValueError(f"keypoint_names must be the {len(KEYPOINT_NAMES)} of COCO, got {self.keypoint_names}")
        _check_calibration(self.score_calibration)


@dataclass(frozen=True)
class DetectorRecord(_Identified):
    """Architecture, preprocessing and origin of the weights of a person detector."""

    name: str
    architecture: str
    """One of `DETECTOR_ARCHITECTURES`."""
    input_size_wh: tuple[int, int] | None
    """Width and height to which every frame is resized, pixels; None if the aspect of the frame is kept."""
    mean: tuple[float, float, float]
    """Subtracted from values in 0..1, in ``channel_order``."""
    std: tuple[float, float, float]
    channel_order: Literal["RGB", "BGR"]
    licence: str
    source: str
    """Origin of the initial weights; for torchvision's, the URL of the weight file."""
    training: str
    accuracy: Mapping[str, float | str]
    """Measured figures in 0..1, and the data of the measurement."""
    sha256: str = ""
    """Hash of the weight file, 64 hexadecimal digits; empty for torchvision's, whose file name holds a part of it."""

    def __post_init__(self) -> None:
        _check_architecture(self.architecture, DETECTOR_ARCHITECTURES)
        _check_preprocessing(self.mean, self.std, self.channel_order)


AnyRecord = PoseRecord | DetectorRecord


_Record = TypeVar("_Record", PoseRecord, DetectorRecord)


def read_record(path: Path, record_type: type[_Record]) -> _Record:
    """Read the record in the header of a weight file, and add the sha256 of the file.

    Raises `WeightsError` if the file is not a readable safetensors file, has no record, or one of another kind.
    """
    kind: Kind = "pose" if record_type is PoseRecord else "detector"
    with open_weights(path) as file:
        header = (file.metadata() or {}).get(METADATA_KEY)
    if header is None:
        raise WeightsError(
            f"{path}: a safetensors file without a posebatch record, so its preprocessing is unknown; "
            "write it with posebatch.models.weights.files.save_weights"
        )
    try:
        body = json.loads(header)
        version, kind_in_file = body.pop("format_version"), body.pop("kind")
        if version != FORMAT_VERSION:
            raise ValueError(f"format version {version}, this posebatch reads {FORMAT_VERSION}")
        if kind_in_file != kind:
            raise ValueError(f"weights of kind {kind_in_file!r} where {kind!r} is wanted")
        return _record_from_json(body, record_type, sha256_of(path))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"{path}: its posebatch record does not fit: {error}; save the file again") from error


def _record_from_json(body: dict[str, Any], record_type: type[_Record], sha256: str) -> _Record:
    known = {field.name for field in fields(record_type)} - {"sha256"}
    wrong = (body.keys() - known) | (known - body.keys() - OPTIONAL_FIELDS)
    if wrong:
        raise ValueError(f"fields missing or unknown: {', '.join(sorted(wrong))}")
    return record_type(**{key: _tuples(value) for key, value in body.items()}, sha256=sha256)


def _tuples(value: Any) -> Any:
    """JSON's lists, also nested ones, as tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def open_weights(path: Path, framework: str = "np") -> Any:
    """Open a safetensors file, as a context manager. Raises `WeightsError`."""
    try:
        return safe_open(path, framework=framework)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such weight file") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path}: not a readable safetensors file ({error}); copy it again, or name it .pth if it is one of torch's"
        ) from error


def _check_architecture(architecture: str, known: tuple[str, ...]) -> None:
    if architecture not in known:
        raise ValueError(f"unknown architecture {architecture!r}; known: {', '.join(known)}")


def _check_calibration(knots: tuple[tuple[float, float], ...]) -> None:
    if any(not isinstance(knot, tuple) or len(knot) != 2 for knot in knots):
        raise ValueError(f"score_calibration must be pairs of numbers, got {knots}")
    if any(not 0 <= value <= 1 for knot in knots for value in knot):
        raise ValueError(f"score_calibration must lie in 0..1, got {knots}")
    if len(knots) == 1 or any(low >= high for pair in pairwise(knots) for low, high in zip(*pair, strict=True)):
        raise ValueError(f"score_calibration must be two knots or more that rise, got {knots}")


def _check_preprocessing(mean: tuple[float, ...], std: tuple[float, ...], channel_order: str) -> None:
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(f"mean and std must be three numbers each, std positive, got {mean} and {std}")
    if channel_order not in ("RGB", "BGR"):
        raise ValueError(f"channel_order must be RGB or BGR, got {channel_order!r}")
