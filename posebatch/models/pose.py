"""Running a pose network: crops in, heatmaps out, in batches of one shape."""

from __future__ import annotations

import torch

from posebatch.models.inference import batch_size_for, pad_batch, prepare_network
from posebatch.models.pose_resnet import HEATMAP_STRIDE, build_pose_network
from posebatch.models.registry import PoseRecord
from posebatch.models.weights import load_into, load_weights
from posebatch.skeleton import FLIP_ORDER, NUM_KEYPOINTS


class PoseNetwork:
    """A SimpleBaseline network with the preprocessing that its weights want."""

    record: PoseRecord
    batch_size: int
    """Crops in every forward pass; fewer are padded."""
    heatmap_size_wh: tuple[int, int]
    """Width and height of a heatmap, pixels."""

    def __init__(self, record: PoseRecord, network: torch.nn.Module, device: str, precision: torch.dtype) -> None:
        self.record = record
        self.batch_size = batch_size_for(device)
        width, height = record.input_size_wh
        self.heatmap_size_wh = (width // HEATMAP_STRIDE, height // HEATMAP_STRIDE)
        self._network = prepare_network(network, device, precision)
        self._device = device
        self._precision = precision
        self._mean = 255 * torch.tensor(record.mean, device=device).view(1, 3, 1, 1)
        self._std = 255 * torch.tensor(record.std, device=device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def heatmaps(self, crops: torch.Tensor, flip_test: bool = False) -> torch.Tensor:
        """Crops (n, 3, h, w) float32 RGB in 0..255, n <= ``batch_size`` -> (n, 17, h/4, w/4) float32.

        ``flip_test`` takes the mean with the maps of the mirrored crops, mirrored back. Raises ``ValueError`` when the
        crops are not of the record's size, or too many.
        """
        width, height = self.record.input_size_wh
        if crops.shape[1:] != (3, height, width):
            raise ValueError(f"crops must be (n, 3, {height}, {width}), got {tuple(crops.shape)}")
        if len(crops) == 0:
            return torch.zeros(0, NUM_KEYPOINTS, height // HEATMAP_STRIDE, width // HEATMAP_STRIDE, device=self._device)
        images = self._normalise(crops)
        maps = self._forward(images)
        if not flip_test:
            return maps
        mirrored = self._forward(images.flip(3))[:, FLIP_ORDER].flip(3)
        if self.record.shift_flipped:
            mirrored[..., 1:] = mirrored[..., :-1].clone()
        return (maps + mirrored) / 2

    def _normalise(self, crops: torch.Tensor) -> torch.Tensor:
        images = crops.to(self._device)
        if self.record.channel_order == "BGR":
            images = images.flip(1)
        return (images - self._mean) / self._std

    def _forward(self, images: torch.Tensor) -> torch.Tensor:
        padded = pad_batch(images, self.batch_size).to(self._precision, memory_format=torch.channels_last)
        maps: torch.Tensor = self._network(padded)[: len(images)]
        return maps.float()


def load_pose_network(name_or_path: str, device: str = "cpu", precision: torch.dtype = torch.float32) -> PoseNetwork:
    """A pose network ready to run, by registered name or weight file.

    Raises `WeightsError` when the name is unknown or the file does not hold exactly this network's weights.
    """
    record, state = load_weights("pose", name_or_path)
    network = build_pose_network(record.architecture)
    load_into(network, state, name_or_path)
    return PoseNetwork(record, network, device, precision)
