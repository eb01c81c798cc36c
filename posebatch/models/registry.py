"""What is known of networks without loading one: the records of weight files, and the registry of names.

Imports no torch, so that whoever only plans work need not wait for it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args, overload

from safetensors import SafetensorError, safe_open

from posebatch.errors import WeightsError
from posebatch.geometry import GridAlignment
from posebatch.skeleton import KEYPOINT_NAMES

Kind = Literal["pose", "detector"]

FORMAT_VERSION: Final = 1
"""Of the record in a file's header."""

METADATA_KEY: Final = "posebatch"
"""Under which a file's header holds its record, as JSON."""

POSE_ARCHITECTURES: Final = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "mobilenet_v2")
"""Backbones of SimpleBaseline."""


@dataclass(frozen=True)
class TorchvisionWeights:
    """What torchvision says of weights that it fetches."""

    name: str
    file_suffix: str
    """Follows the name in the file's; holds the first 8 digits of its sha256."""
    box_ap: float
    """On COCO val2017, 80 classes."""
    parameters: int

    @property
    def url(self) -> str:
        """Of the weight file."""
        return f"https://download.pytorch.org/models/{self.name}{self.file_suffix}"


TORCHVISION_DETECTORS: Final[Mapping[str, TorchvisionWeights]] = {
    weights.name: weights
    for weights in (
        TorchvisionWeights("fasterrcnn_resnet50_fpn_v2", "_coco-dd69338a.pth", 0.467, 43_712_278),
        TorchvisionWeights("fasterrcnn_mobilenet_v3_large_320_fpn", "-907ea3f9.pth", 0.228, 19_386_354),
        TorchvisionWeights("ssdlite320_mobilenet_v3_large", "_coco-a79551df.pth", 0.213, 3_440_060),
        TorchvisionWeights("retinanet_resnet50_fpn_v2", "_coco-5905b1c5.pth", 0.415, 38_198_935),
        TorchvisionWeights("fcos_resnet50_fpn", "_coco-99b0c9b7.pth", 0.392, 32_269_600),
    )
}
"""Detectors that torchvision builds and whose weights it downloads, by torchvision's names."""

DETECTOR_ARCHITECTURES: Final = ("ssdlite_mobilenet_v2", *TORCHVISION_DETECTORS)

EMBEDDED: Final[Mapping[Kind, tuple[str, ...]]] = {
    "pose": ("simplebaseline_mobilenet_v2_256x192",),
    "detector": ("ssdlite_mobilenet_v2_320",),
}
"""Names of the weights that are part of the package."""

_PICKLE_SUFFIXES = (".pth", ".pt", ".tar", ".pkl", ".pickle", ".ckpt", ".bin")


@dataclass(frozen=True)
class PoseRecord:
    """What must be known to use a pose network's weights."""

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
    """The crop is the person's box, widened to the input's aspect, times this."""
    grid_alignment: GridAlignment
    """How the network was taught that crop and heatmap lie on each other; see `posebatch.geometry.grid_to_frame`."""
    shift_flipped: bool
    """Flip test: whether the mirrored map moves one column right before the mean (``SHIFT_HEATMAP`` in the paper's
    code). True for weights trained with heatmap column c on input column 4c, where mirroring costs 3/4 column; False
    for weights trained with both grids laid edge on edge, as `posebatch.geometry` lays them."""
    keypoint_names: tuple[str, ...]
    """Order of the heatmaps."""
    licence: str
    source: str
    """Where the initial weights came from."""
    training: str
    accuracy: Mapping[str, float | str]
    """Measured figures in 0..1, and on what they were measured."""
    sha256: str = ""
    """Of the weight file, 64 hexadecimal digits; empty until it is one."""

    def __post_init__(self) -> None:
        _check_architecture(self.architecture, POSE_ARCHITECTURES)
        _check_preprocessing(self.mean, self.std, self.channel_order)
        if self.grid_alignment not in get_args(GridAlignment):
            raise ValueError(f"grid_alignment must be edges or origin, got {self.grid_alignment!r}")
        if len(self.input_size_wh) != 2 or any(side <= 0 or side % 32 for side in self.input_size_wh):
            raise ValueError(f"input_size_wh must be two multiples of 32, got {self.input_size_wh}")
        if self.keypoint_names != KEYPOINT_NAMES:
            raise ValueError(f"keypoint_names must be the {len(KEYPOINT_NAMES)} of COCO, got {self.keypoint_names}")

    @property
    def identity(self) -> str:
        """The name and what pins the weights: equal identities mean equal weights."""
        return f"{self.name}@{self.sha256}"


@dataclass(frozen=True)
class DetectorRecord:
    """What must be known to use a person detector's weights."""

    name: str
    architecture: str
    """One of `DETECTOR_ARCHITECTURES`."""
    input_size_wh: tuple[int, int] | None
    """Width and height to which every frame is resized, pixels; None when the frame's aspect is kept."""
    mean: tuple[float, float, float]
    """Subtracted from values in 0..1, in ``channel_order``."""
    std: tuple[float, float, float]
    channel_order: Literal["RGB", "BGR"]
    licence: str
    source: str
    """Where the initial weights came from; for torchvision's, the URL of the weight file."""
    training: str
    accuracy: Mapping[str, float | str]
    """Measured figures in 0..1, and on what they were measured."""
    sha256: str = ""
    """Of the weight file, 64 hexadecimal digits; empty for torchvision's, whose file name holds a part of the hash."""

    def __post_init__(self) -> None:
        _check_architecture(self.architecture, DETECTOR_ARCHITECTURES)
        _check_preprocessing(self.mean, self.std, self.channel_order)

    @property
    def identity(self) -> str:
        """The name and what pins the weights: equal identities mean equal weights."""
        return f"{self.name}@{self.sha256 or self.source.rsplit('/', 1)[-1]}"


AnyRecord = PoseRecord | DetectorRecord
_Record = TypeVar("_Record", PoseRecord, DetectorRecord)


@dataclass(frozen=True)
class ModelRow:
    """One line of ``posebatch models``."""

    kind: Kind
    name: str
    input_size: str
    """Width x height in pixels, or how it follows from the frame."""
    licence: str
    accuracy: str
    """Measured figures, and on what."""
    weights_from: str
    """``package``, or the URL of the download."""
    parameters: int


def list_models() -> list[ModelRow]:
    """Every name that `resolve` knows: the embedded weights first, then torchvision's."""
    names: list[tuple[Kind, str]] = [(kind, name) for kind in EMBEDDED for name in EMBEDDED[kind]]
    names += [("detector", name) for name in TORCHVISION_DETECTORS]
    return [_model_row(kind, name) for kind, name in names]


@overload
def resolve(kind: Literal["pose"], name_or_path: str) -> PoseRecord: ...
@overload
def resolve(kind: Literal["detector"], name_or_path: str) -> DetectorRecord: ...
def resolve(kind: Kind, name_or_path: str) -> AnyRecord:
    """The record of a registered name or of a weight file, without building the network or downloading anything.

    Raises `WeightsError` for an unknown name (with the nearest known one) and for a file that is not one of ours.
    """
    if kind == "detector" and name_or_path in TORCHVISION_DETECTORS:
        return _torchvision_record(name_or_path)
    path = weight_file(kind, name_or_path)
    return read_record(path, PoseRecord) if kind == "pose" else read_record(path, DetectorRecord)


def read_record(path: Path, record_type: type[_Record]) -> _Record:
    """The record in a weight file's header, with the file's sha256.

    Raises `WeightsError` for a file that cannot be read, is no safetensors file, has no record, or one of another kind.
    """
    kind: Kind = "pose" if record_type is PoseRecord else "detector"
    with open_weights(path) as file:
        header = (file.metadata() or {}).get(METADATA_KEY)
    if header is None:
        raise WeightsError(
            f"{path}: a safetensors file without a posebatch record, so its preprocessing is unknown; "
            "write it with posebatch.models.weights.save_weights"
        )
    try:
        body = json.loads(header)
        version, found_kind = body.pop("format_version"), body.pop("kind")
        if version != FORMAT_VERSION:
            raise ValueError(f"format version {version}, this posebatch reads {FORMAT_VERSION}")
        if found_kind != kind:
            raise ValueError(f"weights of kind {found_kind!r} where {kind!r} is wanted")
        return _record_from_json(body, record_type, sha256_of(path))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"{path}: its posebatch record does not fit: {error}; save the file again") from error


def sha256_of(path: Path) -> str:
    """The file's sha256, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record_from_json(body: dict[str, Any], record_type: type[_Record], sha256: str) -> _Record:
    known = {field.name for field in fields(record_type)} - {"sha256"}
    if body.keys() != known:
        raise ValueError(f"fields missing or unknown: {', '.join(sorted(body.keys() ^ known))}")
    arguments: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in body.items()}
    return record_type(**arguments, sha256=sha256)


def weight_file(kind: Kind, name_or_path: str) -> Path:
    """The file that a name or path stands for. Raises `WeightsError` for an unknown name, and for a pickle."""
    if name_or_path in EMBEDDED[kind]:
        return Path(__file__).parent / f"{name_or_path}.safetensors"
    path = Path(name_or_path)
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        raise WeightsError(
            f"{path}: a pickle can run code when it is read, so posebatch reads only its own safetensors files; "
            "convert it once, where you trust it, with posebatch.models.weights.save_weights"
        )
    if path.suffix == ".safetensors" or os.sep in name_or_path or path.is_file():
        return path
    known = [*EMBEDDED[kind], *(TORCHVISION_DETECTORS if kind == "detector" else ())]
    nearest = difflib.get_close_matches(name_or_path, known, n=1, cutoff=0.4)
    hint = f"; did you mean {nearest[0]}?" if nearest else "."
    raise WeightsError(f"no {kind} is called {name_or_path!r}{hint} Known: {', '.join(known)}, or a .safetensors path")


def open_weights(path: Path, framework: str = "np") -> Any:
    """Open a safetensors file; it is a context manager. Raises `WeightsError`."""
    try:
        return safe_open(path, framework=framework)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such weight file") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path}: not a readable safetensors file ({error}); copy it again, or convert it with "
            "posebatch.models.weights.save_weights if it is something else"
        ) from error


def _torchvision_record(name: str) -> DetectorRecord:
    weights = TORCHVISION_DETECTORS[name]
    fixed_size = name == "ssdlite320_mobilenet_v3_large"
    return DetectorRecord(
        name=name,
        architecture=name,
        input_size_wh=(320, 320) if fixed_size else None,
        mean=(0.5, 0.5, 0.5) if fixed_size else (0.485, 0.456, 0.406),
        std=(0.5, 0.5, 0.5) if fixed_size else (0.229, 0.224, 0.225),
        channel_order="RGB",
        licence="BSD-3-Clause",
        source=weights.url,
        training="by torchvision, on COCO train2017",
        accuracy={"box AP": weights.box_ap, "measured on": "COCO val2017, 80 classes, by torchvision"},
    )


_EMBEDDED_PARAMETERS: Final = {"simplebaseline_mobilenet_v2_256x192": 5_225_489, "ssdlite_mobilenet_v2_320": 2_072_152}


def _model_row(kind: Kind, name: str) -> ModelRow:
    record: AnyRecord = resolve(kind, name)
    embedded = name in EMBEDDED[kind]
    size = record.input_size_wh
    return ModelRow(
        kind=kind,
        name=name,
        input_size=f"{size[0]}x{size[1]}" if size else "follows the frame",
        licence=record.licence,
        accuracy=", ".join(f"{key} {value}" for key, value in record.accuracy.items()),
        weights_from="package" if embedded else record.source,
        parameters=_EMBEDDED_PARAMETERS[name] if embedded else TORCHVISION_DETECTORS[name].parameters,
    )


def _check_architecture(architecture: str, known: tuple[str, ...]) -> None:
    if architecture not in known:
        raise ValueError(f"unknown architecture {architecture!r}; known: {', '.join(known)}")


def _check_preprocessing(mean: tuple[float, ...], std: tuple[float, ...], channel_order: str) -> None:
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(f"mean and std must be three numbers each, std positive, got {mean} and {std}")
    if channel_order not in ("RGB", "BGR"):
        raise ValueError(f"channel_order must be RGB or BGR, got {channel_order!r}")
