"""Networks in 8-bit integers, made from full ones: where a processor has VNNI or AMX, several times faster.

Post-training quantization by NNCF: the ranges of activations are measured on real inputs, weights get a scale for each
channel, and the bias that rounding brings is corrected. Source: B. Jacob et al., "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from posebatch.core.errors import SettingsError
from posebatch.models.networks.engines import to_openvino
from posebatch.models.weights.quantized import QuantizedNetwork, QuantizedRecord


def quantize_network(
    network: nn.Module, inputs: Sequence[torch.Tensor], original: str, calibration: str
) -> QuantizedNetwork:
    """A network with loaded weights in 8-bit integers; it is changed.

    ``inputs`` are batches of one size (n, 3, h, w) float32, as the network gets them at work. ``original`` is the
    identity of its weights, ``calibration`` says what the inputs show. Raises `SettingsError` without NNCF.
    """
    try:
        import nncf  # noqa: PLC0415 - optional
    except ImportError as error:
        raise SettingsError(
            "quantizing needs NNCF, which is not installed: pip install 'posebatch[quantize]'"
        ) from error
    nncf.set_log_level(logging.ERROR)
    size, _, height, width = inputs[0].shape
    model = to_openvino(network, (width, height), size)
    dataset = nncf.Dataset([batch.numpy() for batch in inputs])
    quantized = nncf.quantize(
        model, dataset, subset_size=len(inputs), preset=nncf.QuantizationPreset.MIXED, fast_bias_correction=False
    )
    made_with = ", ".join(f"{name} {version(name)}" for name in ("nncf", "openvino", "torch"))
    graph, weights = _serialised(quantized)
    return QuantizedNetwork(QuantizedRecord(original, calibration, made_with, {}), graph, weights)


def _serialised(model: object) -> tuple[bytes, bytes]:
    import openvino  # noqa: PLC0415 - optional

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.xml")
        openvino.save_model(model, path, compress_to_fp16=True)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()
