"""Loading weights without surprises, and writing them.

A weight file is a safetensors file that carries its record (see `posebatch.models.registry`) in its header. Reading is
strict: every key must be there, none may be left over, every shape must fit. Nothing is ever unpickled from a path;
torchvision's own weights, which exist as pickles only, are fetched by torchvision, checked against the hash in their
name, and read with ``weights_only``.
"""

from __future__ import annotations

import http.client
import json
import pickle
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal, TypeVar, overload

import torch
from safetensors.torch import save
from torch import nn
from torchvision.models import get_model_weights

from posebatch.errors import WeightsError
from posebatch.models.registry import (
    EMBEDDED,
    FORMAT_VERSION,
    METADATA_KEY,
    TORCHVISION_DETECTORS,
    AnyRecord,
    DetectorRecord,
    Kind,
    PoseRecord,
    open_weights,
    resolve,
    sha256_of,
    weight_file,
)

StateDict = dict[str, torch.Tensor]
_Record = TypeVar("_Record", PoseRecord, DetectorRecord)

_FETCH_ERRORS = (OSError, RuntimeError, EOFError, pickle.UnpicklingError, http.client.HTTPException)
"""No network or no room, a wrong hash, a damaged file in the cache."""


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
    path = weight_file(kind, name_or_path)
    with open_weights(path, framework="pt") as file:
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
    path.write_bytes(save(tensors, metadata={METADATA_KEY: header}))
    return replace(record, sha256=sha256_of(path))


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


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _list_keys(what: str, keys: list[str]) -> str:
    if not keys:
        return ""
    return f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
