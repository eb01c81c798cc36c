"""Quantization to 8 bits: calibrate on a network's real inputs from labelled images, and measure the result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from posebatch.core.errors import InputError, SettingsError
from posebatch.core.frames import Detections
from posebatch.core.settings import EstimatorSettings
from posebatch.evaluation.detector_accuracy import detect_persons, evaluate_detector, inclusive_settings
from posebatch.evaluation.labels import LabelledDataset
from posebatch.evaluation.pose_accuracy import evaluate_keypoints, keypoints_for_boxes
from posebatch.models.networks.boxes import anchor_boxes
from posebatch.models.networks.engines import Outputs, Placement, start_engine, start_quantized
from posebatch.models.networks.person_detector import BoxNetwork, DetectorSettings, SSDLitePersonDetector
from posebatch.models.networks.pose_network import PoseNetwork
from posebatch.models.networks.pose_resnet import build_pose_network
from posebatch.models.networks.quantization import quantize_network
from posebatch.models.networks.ssdlite import INPUT_SIZE, build_person_ssd
from posebatch.models.weights.files import load_into, load_weights
from posebatch.models.weights.quantized import QuantizedNetwork
from posebatch.models.weights.records import SSDLITE_ARCHITECTURES

INT8 = Placement("cpu", "int8", "openvino")


class _Recorder:
    """An engine that records its inputs, one image at a time."""

    def __init__(self, network: nn.Module, input_size_wh: tuple[int, int]) -> None:
        self._engine = start_engine(network, input_size_wh, Placement(batch_size=1))
        self.batch_size, self.device = self._engine.batch_size, self._engine.device
        self.inputs: list[torch.Tensor] = []

    def __call__(self, images: torch.Tensor) -> Outputs:
        self.inputs.append(images.clone())
        return self._engine(images)


def quantize_pose(name_or_path: str, data: LabelledDataset, validation: LabelledDataset | None) -> QuantizedNetwork:
    """Quantize a pose network to 8-bit integers, calibrated on the labelled persons of ``data``.

    Measures it on ``validation`` unless that is None. Raises `WeightsError`, `InputError` if no person is labelled, and
    `SettingsError` without NNCF.
    """
    record, state = load_weights("pose", name_or_path)
    network = build_pose_network(record.architecture)
    load_into(network, state, name_or_path)
    recorder = _Recorder(network, record.input_size_wh)
    for _ in keypoints_for_boxes(PoseNetwork(record, recorder), data, _labelled_boxes(data), EstimatorSettings()):
        pass
    if not recorder.inputs:
        raise InputError(f"{data.name}: nobody is labelled in it, so there is nothing to calibrate a pose network on")
    calibration = f"{len(recorder.inputs)} persons of {data.name}"
    quantized = quantize_network(network, recorder.inputs, record.identity, calibration)
    if validation is None:
        return quantized
    ready = PoseNetwork(record, start_quantized(quantized, record.input_size_wh, INT8))
    figures = evaluate_keypoints(ready, validation, EstimatorSettings()).average_precision
    return quantized.measured({"AP": figures.ap, "AR": figures.ar, "measured on": f"{validation.name}, labelled boxes"})


def quantize_detector(name_or_path: str, data: LabelledDataset, validation: LabelledDataset | None) -> QuantizedNetwork:
    """Quantize an SSDLite detector to 8-bit integers, calibrated on the images of ``data``.

    Measures it on ``validation`` unless that is None. Raises `WeightsError`, `InputError` if an image cannot be
    decoded, and `SettingsError` without NNCF or for another kind of detector.
    """
    record, state = load_weights("detector", name_or_path)
    if record.architecture not in SSDLITE_ARCHITECTURES:
        known = ", ".join(SSDLITE_ARCHITECTURES)
        raise SettingsError(f"--detector {name_or_path}: only detectors of the kinds {known} can be quantized")
    ssd = build_person_ssd(record.architecture)
    load_into(ssd, state, name_or_path)
    anchors = anchor_boxes(ssd)
    recorder = _Recorder(network := BoxNetwork(ssd), (INPUT_SIZE, INPUT_SIZE))
    detect_persons(SSDLitePersonDetector(record, recorder, anchors, DetectorSettings()), data)
    calibration = f"{len(recorder.inputs)} images of {data.name}"
    quantized = quantize_network(network, recorder.inputs, record.identity, calibration)
    if validation is None:
        return quantized
    engine = start_quantized(quantized, (INPUT_SIZE, INPUT_SIZE), INT8)
    accuracy = evaluate_detector(SSDLitePersonDetector(record, engine, anchors, inclusive_settings()), validation)
    return quantized.measured(
        {
            "AP50": accuracy.average_precision.ap50,
            "recall at precision 0.8": accuracy.recall_at_wanted_precision,
            "measured on": validation.name,
        }
    )


def _labelled_boxes(dataset: LabelledDataset) -> list[Detections]:
    boxes = [image.persons.bbox_xyxy[~image.persons.ignored].astype(np.float32) for image in dataset.images]
    return [Detections(box, np.ones(len(box), np.float32)) for box in boxes]


def some_images(dataset: LabelledDataset, count: int, seed: int = 0) -> LabelledDataset:
    """A random choice of ``count`` images, the same for the same seed."""
    chosen = np.random.default_rng(seed).permutation(len(dataset.images))[:count]
    return replace(dataset, images=tuple(dataset.images[number] for number in sorted(chosen)))
