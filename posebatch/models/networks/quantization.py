"""Post-training quantization of networks to 8-bit integers, several times faster on processors with VNNI or AMX.

NNCF measures the ranges of activations on real inputs, gives weights a scale for each channel, and corrects the bias
that rounding causes. Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import version

import torch
from torch import nn

from posebatch.core.errors import SettingsError
from posebatch.models.networks.engines import serialized, to_openvino
from posebatch.models.weights.quantized import QuantizedNetwork, QuantizedRecord


def quantize_network(
    network: nn.Module, inputs: Sequence[torch.Tensor], original: str, calibration: str
) -> QuantizedNetwork:
    """Quantize a network with loaded weights; the network is changed.

    ``inputs`` are batches of one size (n, 3, h, w) float32, preprocessed as for inference. ``original`` is the identity
    of the weights; ``calibration`` describes the inputs. Raises `SettingsError` without NNCF.
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
    graph, weights = serialized(quantized, compress_to_fp16=True)
    return QuantizedNetwork(QuantizedRecord(original, calibration, made_with, {}), graph, weights)
