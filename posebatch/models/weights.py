"""Weights and what must be known to use them: files, the registry of names, and loading without surprises.

A weight file is a safetensors file that carries its record (architecture, preprocessing, origin, licence, accuracy) as
JSON in its header. Reading is strict: every key must be there, none may be left over, every shape must fit. Nothing is
ever unpickled from a path; torchvision's own weights, which exist as pickles only, are fetched by torchvision, checked
against the hash in their name, and read with ``weights_only``.
"""

from __future__ import annotations

import difflib
import hashlib
import http.client
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, overload

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from torchvision.models import get_model_weights

from posebatch.errors import WeightsError
from posebatch.models.pose_resnet import POSE_ARCHITECTURES
from posebatch.skeleton import KEYPOINT_NAMES

Kind = Literal["pose", "detector"]
StateDict = dict[str, torch.Tensor]

FORMAT_VERSION: Final = 1
"""Of the record in a file's header."""

_METADATA_KEY = "posebatch"

TORCHVISION_DETECTORS: Final = (
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "ssdlite320_mobilenet_v3_large",
    "retinanet_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
)
"""Detectors that torchvision builds and whose weights it downloads, by torchvision's names."""

DETECTOR_ARCHITECTURES: Final = ("ssdlite_mobilenet_v2", *TORCHVISION_DETECTORS)

EMBEDDED: Final[Mapping[Kind, tuple[str, ...]]] = {
    "pose": ("simplebaseline_mobilenet_v2_256x192",),
    "detector": ("ssdlite_mobilenet_v2_320",),
}
"""Names of the weights that are part of the package."""

_PICKLE_SUFFIXES = (".pth", ".pt", ".tar", ".pkl", ".pickle", ".ckpt", ".bin")

_FETCH_ERRORS = (OSError, RuntimeError, EOFError, pickle.UnpicklingError, http.client.HTTPException)
"""No network or no room, a wrong hash, a damaged file in the cache."""


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
    path = _weight_file(kind, name_or_path)
    return read_record(path, PoseRecord) if kind == "pose" else read_record(path, DetectorRecord)


@overload
def load_weights(kind: Literal["pose"], name_or_path: str) -> tuple[PoseRecord, StateDict]: ...
@overload
def load_weights(kind: Literal["detector"], name_or_path: str) -> tuple[DetectorRecord, StateDict]: ...
def load_weights(kind: Kind, name_or_path: str) -> tuple[AnyRecord, StateDict]:
    """The record and the tensors of a registered name or of a weight file; `load_into` puts them into a network.

    torchvision's weights are downloaded unless ``TORCH_HOME`` has them. Raises `WeightsError` as `resolve` does, and
    when a download fails.
    """
    record = resolve(kind, name_or_path)
    if kind == "detector" and name_or_path in TORCHVISION_DETECTORS:
        return record, _fetch_torchvision(name_or_path)
    path = _weight_file(kind, name_or_path)
    with _open(path) as file:
        return record, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping


def load_into(network: nn.Module, state: StateDict, label: str) -> None:
    """Copy ``state`` into ``network``, converting number formats; keys and shapes must agree exactly.

    Only batch norms' ``num_batches_tracked`` may be absent or left over: inference does not use it, and checkpoints
    from before it existed are otherwise complete. Raises `WeightsError`, which names ``label`` and the first keys that
    do not fit.
    """
    expected: StateDict = network.state_dict()
    given = {key: tensor for key, tensor in state.items() if not _is_counter(key)}
    wanted = {key: tensor for key, tensor in expected.items() if not _is_counter(key)}
    reshaped = [key for key in wanted if key in given and given[key].shape != wanted[key].shape]
    problems = [
        _list_keys("missing", [key for key in wanted if key not in given]),
        _list_keys("left over", [key for key in given if key not in wanted]),
        _list_keys("of another shape", [f"{k} {[*given[k].shape]} not {[*wanted[k].shape]}" for k in reshaped]),
    ]
    if any(problems):
        raise WeightsError(
            f"{label}: these are not the weights of this network: {'; '.join(filter(None, problems))}. "
            "Use a file that was saved for the architecture its record names."
        )
    network.load_state_dict({**expected, **given})


def save_weights(path: Path, record: _Record, state: StateDict) -> _Record:
    """Write a weight file, and return the record with the file's sha256.

    Tensors keep their number format. Equal arguments give equal bytes.
    """
    body = {key: value for key, value in asdict(record).items() if key != "sha256"}
    kind: Kind = "pose" if isinstance(record, PoseRecord) else "detector"
    header = json.dumps({"format_version": FORMAT_VERSION, "kind": kind, **body})
    tensors = {key: tensor.contiguous() for key, tensor in state.items()}
    path.write_bytes(save(tensors, metadata={_METADATA_KEY: header}))
    return replace(record, sha256=sha256_of(path))


def read_record(path: Path, record_type: type[_Record]) -> _Record:
    """The record in a weight file's header, with the file's sha256.

    Raises `WeightsError` for a file that cannot be read, is no safetensors file, has no record, or one of another kind.
    """
    kind: Kind = "pose" if record_type is PoseRecord else "detector"
    with _open(path) as file:
        header = (file.metadata() or {}).get(_METADATA_KEY)
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


def _weight_file(kind: Kind, name_or_path: str) -> Path:
    """The file that a name or path stands for."""
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


def _open(path: Path) -> Any:
    """Open a safetensors file; it is a context manager."""
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such weight file") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path}: not a readable safetensors file ({error}); copy it again, or convert it with "
            "posebatch.models.weights.save_weights if it is something else"
        ) from error


def _torchvision_record(name: str) -> DetectorRecord:
    weights = get_model_weights(name).DEFAULT
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
        training=f"torchvision, {weights.meta['recipe']}",
        accuracy={
            "box AP": round(weights.meta["_metrics"]["COCO-val2017"]["box_map"] / 100, 4),
            "measured on": "COCO val2017, 80 classes, by torchvision",
        },
    )


def _fetch_torchvision(name: str) -> StateDict:
    weights = get_model_weights(name).DEFAULT
    try:
        state: StateDict = weights.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except _FETCH_ERRORS as error:
        raise WeightsError(
            f"{weights.url}: the weights of {name} could not be fetched ({error}). Without a network, put that file "
            f"into {torch.hub.get_dir()}/checkpoints (TORCH_HOME moves this folder), give --detector PATH of a "
            f"safetensors file, or use the embedded detector {EMBEDDED['detector'][0]}"
        ) from error
    return state


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
        parameters=_EMBEDDED_PARAMETERS[name] if embedded else get_model_weights(name).DEFAULT.meta["num_params"],
    )


def _check_architecture(architecture: str, known: tuple[str, ...]) -> None:
    if architecture not in known:
        raise ValueError(f"unknown architecture {architecture!r}; known: {', '.join(known)}")


def _check_preprocessing(mean: tuple[float, ...], std: tuple[float, ...], channel_order: str) -> None:
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(f"mean and std must be three numbers each, std positive, got {mean} and {std}")
    if channel_order not in ("RGB", "BGR"):
        raise ValueError(f"channel_order must be RGB or BGR, got {channel_order!r}")


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _list_keys(what: str, keys: list[str]) -> str:
    if not keys:
        return ""
    return f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
