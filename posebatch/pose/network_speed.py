"""Speed of the networks on this machine, in crops or frames per second: ``posebatch models --benchmark``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence

import torch

from posebatch.models.networks.engines import PLAIN, start_engine
from posebatch.models.networks.person_detector import (
    DetectorSettings,
    PersonDetector,
    TorchvisionDetector,
    build_torchvision_detector,
    load_detector,
)
from posebatch.models.networks.pose_network import PoseNetwork, load_pose_network
from posebatch.models.networks.pose_resnet import build_pose_network
from posebatch.models.weights.listing import ModelRow
from posebatch.models.weights.names import describe
from posebatch.models.weights.records import AnyRecord, DetectorRecord, PoseRecord
from posebatch.pose.pixels import RgbPixels

_SECONDS = 2.0
"""Least duration of a measurement, seconds. The last batch is always finished."""


_FRAME_WH = (1280, 720)
"""Width and height of the frames for detectors, pixels."""


def measure_speeds(rows: Sequence[ModelRow]) -> Iterator[tuple[str, str]]:
    """Measure each network on one thread in fp32: its name, and its speed as text.

    The speed starts with ``~`` when the network has random weights, because its file is not on this machine. Networks
    of one architecture and input size are measured once. Progress goes to stderr.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    measured: dict[tuple[str, object], str] = {}
    try:
        for number, row in enumerate(rows, 1):
            record = describe(row.kind, row.name)
            key = (record.architecture, record.input_size_wh)
            if key not in measured:
                print(f"measuring {number} of {len(rows)}: {row.name}", file=sys.stderr, flush=True)
                measured[key] = _measure(record, row.weights in ("package", "cached"))
            yield row.name, measured[key]
    finally:
        torch.set_num_threads(threads)


def _measure(record: AnyRecord, weights_are_here: bool) -> str:
    if isinstance(record, PoseRecord):
        per_second = _pose_speed(record, weights_are_here)
    else:
        per_second = _detector_speed(record, weights_are_here)
    return f"{'' if weights_are_here else '~'}{per_second:.1f}"


def _pose_speed(record: PoseRecord, weights_are_here: bool) -> float:
    if weights_are_here:
        network = load_pose_network(record.name)
    else:
        engine = start_engine(build_pose_network(record.architecture), record.input_size_wh, PLAIN)
        network = PoseNetwork(record, engine)
    width, height = record.input_size_wh
    crops = 255 * torch.rand(network.batch_size, 3, height, width)
    return _per_second(lambda: network.heatmaps(crops), network.batch_size)


def _detector_speed(record: DetectorRecord, weights_are_here: bool) -> float:
    settings = DetectorSettings()
    detector: PersonDetector
    if weights_are_here:
        detector = load_detector(record.name, settings)
    else:
        detector = TorchvisionDetector(record, build_torchvision_detector(record.architecture, settings), settings)
    width, height = _FRAME_WH
    frames = (255 * torch.rand(detector.batch_size, height, width, 3)).to(torch.uint8)
    return _per_second(lambda: detector.detect(RgbPixels(frames)), detector.batch_size)


def _per_second(run: Callable[[], object], images: int) -> float:
    run()  # the first pass allocates
    passes, start = 0, time.perf_counter()
    while time.perf_counter() - start < _SECONDS:
        run()
        passes += 1
    return passes * images / (time.perf_counter() - start)
