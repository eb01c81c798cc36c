"""Pairs of networks to measure, by name: those of the presets, and one with a heavy pose network of random weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import torch

from posebatch.core.errors import SettingsError
from posebatch.core.presets import PRESET_VALUES, PRESETS
from posebatch.models.networks.pose_resnet import build_pose_network
from posebatch.models.networks.quantization import quantize_network
from posebatch.models.weights.files import load_into, load_weights, save_weights
from posebatch.models.weights.names import EMBEDDED, resolve
from posebatch.models.weights.quantized import quantized_file, save_quantized

RANDOM_RESNET: Final = "resnet50"
"""The embedded detector with a ResNet-50 pose network of random weights: as fast as a trained network, no download."""


NETWORKS: Final = (*(name for name in PRESETS if name not in PRESET_VALUES), RANDOM_RESNET)


@dataclass(frozen=True)
class Networks:
    """A detector and a pose network, each by name or file."""

    name: str
    """Name in tables."""
    detector: str
    pose: str


def networks_named(name: str, folder: Path) -> Networks:
    """The pair of a name: one of `NETWORKS`, or ``DETECTOR,POSE``. Random weights are written to ``folder``.

    Raises `SettingsError` for another name.
    """
    if name in PRESETS and name not in PRESET_VALUES:
        return Networks(name, *PRESETS[name])
    detector, comma, pose = name.partition(",")
    if comma:
        return Networks(f"{Path(detector).stem} {Path(pose).stem}", detector, pose)
    if name != RANDOM_RESNET:
        known = ", ".join(NETWORKS)
        raise SettingsError(f"networks {name!r} are neither one of {known} nor of the form DETECTOR,POSE")
    path = folder / "resnet50_256x192_random.safetensors"
    if not path.exists():
        write_random_pose_network(path, "resnet50")
        if find_spec("nncf"):
            quantize_random_pose_network(path)
    return Networks(name, EMBEDDED["detector"][0], str(path))


def quantize_random_pose_network(path: Path) -> None:
    """Write the 8-bit version of a random pose network, calibrated on noise: as fast as a trained one."""
    record, state = load_weights("pose", str(path))
    network = build_pose_network(record.architecture)
    load_into(network, state, path.name)
    width, height = record.input_size_wh
    noise = [torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))]
    save_quantized(quantized_file("pose", str(path)), quantize_network(network, noise, record.identity, "noise"))


def write_random_pose_network(path: Path, architecture: str) -> None:
    """Write a weight file for ``--pose`` with random weights, the same in every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_pose_network(architecture)
    trained = resolve("pose", EMBEDDED["pose"][0])
    record = replace(
        trained,
        name=path.stem,
        architecture=architecture,
        source="random",
        training="none: random weights, for measuring speed",
        accuracy={},
        score_calibration=(),
        sha256="",
    )
    save_weights(path, record, network.state_dict())
