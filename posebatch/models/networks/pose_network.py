"""The pose network at work: crops to heatmaps, in batches of one shape."""

from __future__ import annotations

import torch

from posebatch.core.skeleton import FLIP_ORDER, NUM_KEYPOINTS
from posebatch.models.networks.engines import PLAIN, Engine, Placement, start_engine, start_quantized
from posebatch.models.networks.pose_resnet import HEATMAP_STRIDE, build_pose_network
from posebatch.models.weights.files import load_into, load_weights
from posebatch.models.weights.names import resolve
from posebatch.models.weights.quantized import load_quantized
from posebatch.models.weights.records import PoseRecord


class PoseNetwork:
    """A SimpleBaseline network with the preprocessing that its weights were trained with."""

    record: PoseRecord
    heatmap_size_wh: tuple[int, int]
    """Width and height of a heatmap, pixels."""

    def __init__(self, record: PoseRecord, engine: Engine) -> None:
        self.record, self._engine = record, engine
        width, height = record.input_size_wh
        self.heatmap_size_wh = (width // HEATMAP_STRIDE, height // HEATMAP_STRIDE)
        self._mean = 255 * torch.tensor(record.mean, device=engine.device).view(1, 3, 1, 1)
        self._std = 255 * torch.tensor(record.std, device=engine.device).view(1, 3, 1, 1)

    @property
    def batch_size(self) -> int:
        """Most crops in one call."""
        return self._engine.batch_size

    @torch.inference_mode()
    def heatmaps(self, crops: torch.Tensor, flip_test: bool = False) -> torch.Tensor:
        """Crops (n, 3, h, w) float32 RGB in 0..255, n <= ``batch_size`` -> (n, 17, h/4, w/4) float32.

        ``flip_test`` averages them with the maps of the mirrored crops. Raises ``ValueError`` for crops of another size
        than the record's, and for more than ``batch_size`` crops.
        """
        width, height = self.record.input_size_wh
        if crops.shape[1:] != (3, height, width):
            raise ValueError(f"crops must be (n, 3, {height}, {width}), got {tuple(crops.shape)}")
        if len(crops) == 0:
            map_width, map_height = self.heatmap_size_wh
            return torch.zeros(0, NUM_KEYPOINTS, map_height, map_width, device=self._engine.device)
        images = self._normalise(crops)
        (maps,) = self._engine(images)
        if not flip_test:
            return maps
        mirrored = self._engine(images.flip(3))[0][:, FLIP_ORDER].flip(3)
        if self.record.shift_flipped:
            mirrored[..., 1:] = mirrored[..., :-1].clone()
        return (maps + mirrored) / 2

    def _normalise(self, crops: torch.Tensor) -> torch.Tensor:
        images = crops.to(self._engine.device)
        if self.record.channel_order == "BGR":
            images = images.flip(1)
        return (images - self._mean) / self._std


def load_pose_network(name_or_path: str, placement: Placement = PLAIN) -> PoseNetwork:
    """Load a pose network by registered name or weight file.

    Raises `WeightsError` when the name is unknown, when the file does not hold exactly this network's weights, or when
    there is no 8-bit version and the placement needs one.
    """
    if placement.precision == "int8":
        record = resolve("pose", name_or_path)
        quantized = load_quantized("pose", name_or_path)
        return PoseNetwork(record, start_quantized(quantized, record.input_size_wh, placement))
    record, state = load_weights("pose", name_or_path)
    network = build_pose_network(record.architecture)
    load_into(network, state, name_or_path)
    return PoseNetwork(record, start_engine(network, record.input_size_wh, placement, keep=True))
