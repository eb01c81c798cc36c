"""Conversion of other projects' weights to a file of ours: ``posebatch models convert``."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from posebatch.core.errors import WeightsError
from posebatch.models.networks.pose_resnet import build_pose_network
from posebatch.models.weights.files import StateDict, load_into, read_tensors, save_weights
from posebatch.models.weights.layouts import Layout, find_architecture, find_layout, pose_keys
from posebatch.models.weights.names import is_pickle, published_as, resolve, weight_file
from posebatch.models.weights.published import PUBLISHED_POSES
from posebatch.models.weights.records import PAPER_PREPROCESSING, PoseRecord

_SIZE_IN_NAME = re.compile(r"(?<!\d)(\d{2,4})x(\d{2,4})(?!\d)")


def convert(
    source: str,
    target: Path,
    *,
    name: str | None = None,
    input_size_wh: tuple[int, int] | None = None,
    channel_order: Literal["RGB", "BGR"] | None = None,
) -> PoseRecord:
    """Write the weights of a pose network to a file of ours, and return its record. ``source`` is a name or a path.

    For a published file the registry fills in the arguments that are not given. For other files the architecture comes
    from the keys, and the channel order from the layout: BGR for the paper's, RGB for mmpose's. The input size comes
    from the file name (height x width, as in the names of both). Raises `WeightsError` when the input size is unknown,
    and when keys or shapes do not fit.
    """
    if target.suffix != ".safetensors":
        raise WeightsError(f"{target}: weight files of ours end in .safetensors")
    path = weight_file("pose", source)
    tensors = read_tensors(path)
    known = source in PUBLISHED_POSES or published_as("pose", path) is not None or not is_pickle(path)
    record = resolve("pose", source) if known else None
    changes: dict[str, Any] = {"name": name, "input_size_wh": input_size_wh, "channel_order": channel_order}
    try:
        state = {key: tensors[theirs] for theirs, key in pose_keys(tensors).items()}
        record = record or _guessed_record(path, state, find_layout(tensors), input_size_wh)
        given = {key: value for key, value in changes.items() if value is not None}
        if given.keys() - {"name"}:
            given["score_calibration"] = ()  # measured on heatmaps of the former input
        record = replace(record, **given)
    except (WeightsError, ValueError) as error:
        raise WeightsError(f"{path}: {error}") from error
    network = build_pose_network(record.architecture)
    load_into(network, state, source)
    try:
        return save_weights(target, record, network.state_dict())
    except OSError as error:
        raise WeightsError(f"{target}: cannot be written: {error.strerror or error}") from error


def _guessed_record(path: Path, state: StateDict, layout: Layout, input_size_wh: tuple[int, int] | None) -> PoseRecord:
    architecture = find_architecture({key: tuple(tensor.shape) for key, tensor in state.items()})
    if architecture is None:
        raise WeightsError("these are the weights of none of the networks that posebatch builds")
    size = input_size_wh or _size_in_name(path)
    if size is None:
        raise WeightsError("neither the file nor its name gives the input size; give --input-size WxH")
    return PoseRecord(
        name=path.name.split(".")[0],
        architecture=architecture,
        input_size_wh=size,
        channel_order="BGR" if layout == "plain" else "RGB",
        **PAPER_PREPROCESSING,
        licence="not stated",
        source=path.name,
        training="not stated",
        accuracy={},
    )


def _size_in_name(path: Path) -> tuple[int, int] | None:
    match = _SIZE_IN_NAME.search(path.name)
    return (int(match[2]), int(match[1])) if match else None
