"""Reading and writing weight files.

Our own files are safetensors files with their record (`posebatch.models.weights.records`) in the header. Those of other
projects are torch pickles with keys of their own (`posebatch.models.weights.layouts`). Pickles are only read with
``weights_only``, which builds tensors and plain values and runs no code. Loading is strict: no key may be missing or
left over, and every shape must fit.
"""

from __future__ import annotations

import contextlib
import json
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, overload

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from posebatch.core.errors import WeightsError
from posebatch.models.weights import layouts
from posebatch.models.weights.cache import check_hash, fetch_object, fetch_published, sha256_of
from posebatch.models.weights.names import REMOVED, is_pickle, known_names, resolve, weight_file
from posebatch.models.weights.published import TORCHVISION_BACKBONES
from posebatch.models.weights.records import (
    FORMAT_VERSION,
    METADATA_KEY,
    OPTIONAL_FIELDS,
    AnyRecord,
    DetectorRecord,
    Kind,
    PoseRecord,
    open_weights,
)
from posebatch.storage.addresses import is_s3

StateDict = dict[str, torch.Tensor]


_Record = TypeVar("_Record", PoseRecord, DetectorRecord)


_NUMPY_CONSTRUCTORS: Final[list[Any]] = [
    np.ndarray,
    np.dtype,
    *(type(np.dtype(code)) for code in ("f4", "f8", "i4", "i8", "u1", "?")),
    *((np.empty(0).__reduce__()[0], f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
"""Constructors of numeric arrays in a pickle, under the names of numpy 1 and 2. mmpose 1.x has such arrays beside the
weights. The constructors run no code. Arrays of objects are refused, because their type is not in this list."""


@overload
def load_weights(kind: Literal["pose"], name_or_path: str) -> tuple[PoseRecord, StateDict]: ...


@overload
def load_weights(kind: Literal["detector"], name_or_path: str) -> tuple[DetectorRecord, StateDict]: ...


def load_weights(kind: Kind, name_or_path: str) -> tuple[AnyRecord, StateDict]:
    """Load the record and the tensors of a registered name or of a weight file, by the keys of our networks.

    Published weights are downloaded unless the cache has them. `load_into` copies the tensors into a network. Raises
    `WeightsError` as `resolve` does, and when a download or reading fails::

        >>> record, state = load_weights("pose", "simplebaseline_mobilenet_v2_w175_256x192")
        >>> network = build_pose_network(record.architecture)
        >>> load_into(network, state, record.name)
    """
    record = resolve(kind, name_or_path)
    path = weight_file(kind, name_or_path)
    state = read_tensors(path)
    if isinstance(record, PoseRecord):
        state = _under_our_keys(path, state)
        _check_architecture(path, state, record.architecture)
    return record, state


def read_tensors(path: Path) -> StateDict:
    """Read the tensors of a safetensors file or of a torch pickle, by the file's own keys.

    Raises `WeightsError` for an unreadable file, and for a pickle with more than tensors and plain values.
    """
    if is_pickle(path):
        return _read_pickle(path)
    with open_weights(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping


def load_backbone(network: nn.Module, name_or_path: str) -> None:
    """Copy the weights of a backbone into a pose network, as a start for training; the head is not changed.

    ``name_or_path`` is one of torchvision's classifiers (``resnet50``), a pose network, or a file of either, with or
    without a record. MobileNetV2's last convolution is left out if the network has none. Raises `WeightsError` when the
    other keys or shapes do not fit exactly.
    """
    path = _backbone_file(name_or_path)
    tensors = read_tensors(path)
    expected = {key: tensor for key, tensor in network.state_dict().items() if not layouts.is_head(key)}
    with _errors_name(path):
        given = {name: tensors[key] for key, name in layouts.backbone_keys(tensors, expected).items()}
    check_fit(expected, given, name_or_path)
    network.load_state_dict({**network.state_dict(), **given}, strict=False)


def load_into(network: nn.Module, state: StateDict, label: str) -> None:
    """Copy ``state`` into ``network`` and convert number formats; keys and shapes must agree exactly.

    Only ``num_batches_tracked`` of batch norms may be missing or left over: inference does not use it, and old
    checkpoints do not have it. Raises `WeightsError` with ``label`` and the first keys that do not fit.
    """
    expected: StateDict = network.state_dict()
    check_fit(expected, state, label)
    network.load_state_dict({**expected, **{key: state[key] for key in expected if key in state}})


def check_fit(expected: StateDict, state: StateDict, label: str) -> None:
    """Raise `WeightsError`, as `load_into` does, when keys or shapes do not agree."""
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


def save_weights(path: Path, record: _Record, state: StateDict) -> _Record:
    """Write a weight file, and return the record with the sha256 of the file.

    Tensors keep their number format. Equal arguments give equal bytes.
    """
    given = asdict(record).items()
    body = {key: value for key, value in given if key != "sha256" and (value or key not in OPTIONAL_FIELDS)}
    kind: Kind = "pose" if isinstance(record, PoseRecord) else "detector"
    header = json.dumps({"format_version": FORMAT_VERSION, "kind": kind, **body})
    tensors = {key: tensor.contiguous() for key, tensor in state.items()}
    path.write_bytes(save(tensors, metadata={METADATA_KEY: header}))
    return replace(record, sha256=sha256_of(path))


def _backbone_file(name_or_path: str) -> Path:
    if name_or_path in TORCHVISION_BACKBONES:
        return fetch_published(TORCHVISION_BACKBONES[name_or_path])
    if name_or_path in known_names("pose") or name_or_path in REMOVED:
        return weight_file("pose", name_or_path)
    path = fetch_object(name_or_path) if is_s3(name_or_path) else Path(name_or_path)
    for file in TORCHVISION_BACKBONES.values():
        if file.file_name == path.name:
            check_hash(path, file.sha256_prefix)
    return path


def _read_pickle(path: Path) -> StateDict:
    try:
        with torch.serialization.safe_globals(_NUMPY_CONSTRUCTORS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such weight file") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: refused, because it holds more than tensors and plain values, and reading such a pickle can run "
            f"code: {_summary(error)}. If you trust it, load it with its own library and save its state_dict alone"
        ) from error
    except Exception as error:  # the unpickler can raise anything on damaged bytes
        raise WeightsError(f"{path}: not a readable torch file ({_summary(error)}); fetch or copy it again") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise WeightsError(f"{path}: holds no state_dict: expected tensors by name, at the top or under that key")
    return dict(content)


def _summary(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    explaining = [line for line in lines if "Unsupported" in line or "GLOBAL" in line]
    return (explaining or lines or [type(error).__name__])[0]


def _under_our_keys(path: Path, tensors: StateDict) -> StateDict:
    with _errors_name(path):
        return {name: tensors[key] for key, name in layouts.pose_keys(tensors).items()}


def _check_architecture(path: Path, state: StateDict, architecture: str) -> None:
    actual = layouts.find_architecture({key: tuple(tensor.shape) for key, tensor in state.items()})
    if actual not in (None, architecture):  # load_into names the keys of an unknown architecture
        raise WeightsError(f"{path}: these are the weights of {actual}, where {architecture} is wanted")


@contextlib.contextmanager
def _errors_name(path: Path) -> Iterator[None]:
    """Put the path in front of a `WeightsError`'s message."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _list_keys(problem: str, keys: list[str]) -> str:
    if not keys:
        return ""
    return f"{len(keys)} {problem} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
