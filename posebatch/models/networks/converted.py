"""Networks converted for OpenVINO, kept on this node: conversion takes a worker longer than all else but its imports.

A file holds a graph and its constants as OpenVINO writes them, behind their digest. They are as independent of the
processor as the weights: OpenVINO compiles them for its processor at each start, in a tenth of a second. The name of a
file is a digest of all that a conversion depends on: weights, layers, sources, library versions, batch. So a file is
never out of date, only unused.

A file that is damaged is removed and made again. A folder that cannot be read or written costs time, never a run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final

import torch
from torch import nn

from posebatch.models.weights.cache import cache_folder
from posebatch.storage.spool import write_atomically

Converted = tuple[bytes, bytes]
"""OpenVINO's XML, and the constants of the graph."""

KEPT_FILES: Final = 8
"""Files that are kept, those used last: two for each pair of networks, about 20 MB for the embedded pair."""

_FOLDER: Final = "converted"

_LENGTH_BYTES: Final = 8

_DIGEST_BYTES: Final = 32


def keep_converted(
    network: nn.Module, input_size_wh: tuple[int, int], batch_size: int, convert: Callable[[], Converted]
) -> Converted:
    """The conversion of a network of this package, from its file or else from ``convert``, which then makes the file.

    Both give the same bytes. ``convert`` may change the network.
    """
    try:
        path = cache_folder() / _FOLDER / f"{_key(network, input_size_wh, batch_size)}.network"
    except RuntimeError:  # the user has no home folder
        return convert()
    converted = _read(path)
    if converted is None:
        converted = convert()
        _write(path, converted)
    return converted


def _key(network: nn.Module, input_size_wh: tuple[int, int], batch_size: int) -> str:
    key = hashlib.sha256()
    versions = [f"{name} {version(name)}" for name in ("torch", "torchvision", "openvino")]
    processor = torch.backends.cpu.get_cpu_capability()  # rounds while batch norms are folded
    key.update(repr((versions, processor, input_size_wh, batch_size, repr(network))).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        key.update(source.read_bytes())
    for name, tensor in network.state_dict().items():
        key.update(f"{name} {tensor.dtype} {[*tensor.shape]}".encode())
        key.update(tensor.detach().cpu().contiguous().numpy().data)
    return key.hexdigest()[:32]


def _read(path: Path) -> Converted | None:
    """The content of a file; None without one, and for a damaged one, which is removed."""
    with contextlib.suppress(OSError):
        content = path.read_bytes()
        body = memoryview(content)[_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() == content[:_DIGEST_BYTES]:
            os.utime(path)  # used now
            end = _LENGTH_BYTES + int.from_bytes(body[:_LENGTH_BYTES], "big")
            return bytes(body[_LENGTH_BYTES:end]), bytes(body[end:])
        path.unlink()
    return None


def _write(path: Path, converted: Converted) -> None:
    graph, constants = converted
    body = len(graph).to_bytes(_LENGTH_BYTES, "big") + graph + constants
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: file.write(hashlib.sha256(body).digest() + body))
        newest_first = sorted(path.parent.glob("*.network"), key=lambda each: each.stat().st_mtime, reverse=True)
        for unused in newest_first[KEPT_FILES:]:
            unused.unlink(missing_ok=True)
