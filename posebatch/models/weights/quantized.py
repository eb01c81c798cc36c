"""Files of networks in 8-bit integers, beside the files of the original weights.

A file ``NAME.int8.safetensors`` holds OpenVINO's graph and constants as plain bytes, and a record of its origin in the
header. The preprocessing is in the record of the original weights, so their file must be there too. This module imports
neither torch nor OpenVINO, which take seconds to load, because planning needs it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.numpy import save

from posebatch.core.errors import WeightsError
from posebatch.models.weights.cache import sha256_of
from posebatch.models.weights.names import resolve, weight_file
from posebatch.models.weights.records import Kind, open_weights

SUFFIX: Final = ".int8.safetensors"


_METADATA_KEY: Final = "posebatch-int8"


_GRAPH, _WEIGHTS = "graph", "weights"


@dataclass(frozen=True)
class QuantizedRecord:
    """The origin of a quantized network."""

    original: str
    """Identity of the original weights."""
    calibration: str
    """The data on which the ranges of activations were measured."""
    made_with: str
    """Libraries and their versions."""
    accuracy: Mapping[str, float | str]
    """Measured figures in 0..1, and the data of the measurement."""


@dataclass(frozen=True)
class QuantizedNetwork:
    """A quantized network in the form that OpenVINO reads."""

    record: QuantizedRecord
    graph: bytes
    """OpenVINO's XML."""
    weights: bytes
    """The constants of the graph."""

    def measured(self, accuracy: Mapping[str, float | str]) -> QuantizedNetwork:
        """A copy with these figures in its record."""
        return replace(self, record=replace(self.record, accuracy=accuracy))


def quantized_file(kind: Kind, name_or_path: str) -> Path:
    """The path of the 8-bit version of weights, beside their file. Raises `WeightsError` as `weight_file` does."""
    path = weight_file(kind, name_or_path)
    return path.with_name(path.name.removesuffix(".safetensors") + SUFFIX)


def quantized_identity(kind: Kind, name_or_path: str) -> str:
    """The name and the sha256 of the 8-bit version of weights. Raises `WeightsError` when there is none."""
    name = resolve(kind, name_or_path).name
    path = quantized_file(kind, name_or_path)
    _read_record(kind, name_or_path, path)
    return f"{name}@{sha256_of(path)}"


def load_quantized(kind: Kind, name_or_path: str) -> QuantizedNetwork:
    """Load the 8-bit version of weights. Raises `WeightsError` when there is none, or when it is of other weights."""
    path = quantized_file(kind, name_or_path)
    record = _read_record(kind, name_or_path, path)
    with open_weights(path) as file:
        graph, weights = (bytes(file.get_tensor(key)) for key in (_GRAPH, _WEIGHTS))
    return QuantizedNetwork(record, graph, weights)


def save_quantized(path: Path, network: QuantizedNetwork) -> None:
    """Write a quantized network to a file."""
    tensors = {
        _GRAPH: np.frombuffer(network.graph, np.uint8),
        _WEIGHTS: np.frombuffer(network.weights, np.uint8),
    }
    path.write_bytes(save(tensors, metadata={_METADATA_KEY: json.dumps(asdict(network.record))}))


def _read_record(kind: Kind, name_or_path: str, path: Path) -> QuantizedRecord:
    if not path.exists():
        raise WeightsError(
            f"{name_or_path}: there is no 8-bit version of these weights ({path}); make one once with "
            f"jobs/quantize.py --{kind} {name_or_path}, or use another --precision"
        )
    with open_weights(path) as file:
        header = (file.metadata() or {}).get(_METADATA_KEY)
    try:
        record = QuantizedRecord(**json.loads(header or ""))
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path}: no record of a quantized network in its header; make the file again") from error
    original = resolve(kind, name_or_path).identity
    if record.original != original:
        raise WeightsError(
            f"{path}: was made from {record.original}, not from {original}; make it again with jobs/quantize.py"
        )
    return record
