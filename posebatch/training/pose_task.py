"""The training task of a pose network: SimpleBaseline's recipe (Xiao et al., ECCV 2018, section 4), with additions.

The additions help small data sets: a cross-entropy over each heatmap, and folded batch norms (`BatchNorms`). Small
batches of few persons would spoil the statistics of batch norms, and on a CPU batch norms take a fifth of the time.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import nn

from posebatch.core.settings import EstimatorSettings
from posebatch.evaluation.labels import LabelledDataset
from posebatch.evaluation.pose_accuracy import evaluate_keypoints
from posebatch.models.networks.engines import Placement, start_engine
from posebatch.models.networks.pose_network import PoseNetwork
from posebatch.models.networks.pose_resnet import HEATMAP_STRIDE
from posebatch.models.networks.preparation import fold_batch_norms
from posebatch.models.weights.records import PoseRecord
from posebatch.pose.heatmaps import encode_heatmaps
from posebatch.training.device_crops import DevicePictures, vary_crops
from posebatch.training.loop import Row, shuffled
from posebatch.training.pose_augmentation import PlacedPerson, PoseAugmentation, crop_person, place_person
from posebatch.training.pose_examples import PoseExamples

_TEMPERATURE: Final = 12.0
"""Factor on heatmaps, whose peaks are near 1, before the softmax: sharp, but with gradients to learn from."""


_SQUARED_ERROR_SCALE: Final = 500.0
"""Factor on the squared error, to bring it near 1: most pixels of a heatmap are 0."""


BatchNorms = Literal["folded", "head", "all"]
"""The batch norms that learn. ``folded``: none, for a trained network. ``head``: those of the deconvolutions, for a new
head on a trained backbone. ``all``: all of them as in the paper, for random weights."""


_HEAD: Final = ("deconv_layers", "final_layer")


@dataclass(frozen=True)
class PoseTaskSettings:
    """Settings of the task; `LoopSettings` has those of the loop."""

    backbone_rate: float = 0.25
    """Learning rate of the backbone, as a factor on that of the head."""
    batch_norms: BatchNorms = "folded"
    frozen_blocks: int = 4
    """First blocks of the backbone that keep their weights: edges and colours need not be learnt again."""
    cross_entropy: float = 0.3
    """Weight of the spatial cross-entropy beside the squared error; a third of it in the last seventh of the steps."""
    crops_on_device: bool = False
    """Whether persons are cropped and augmented on the network's device, for a GPU; else by Pillow on the CPU."""


class PoseTask:
    """A `posebatch.training.loop.Task`: one pose network on labelled persons."""

    def __init__(
        self,
        network: nn.Module,
        record: PoseRecord,
        examples: PoseExamples,
        settings: PoseTaskSettings,
        augmentation: PoseAugmentation,
        seed: int,
        validation: LabelledDataset | None = None,
    ) -> None:
        if settings.batch_norms != "all":
            fold_batch_norms(network.eval(), besides=_HEAD if settings.batch_norms == "head" else ())
        network.train()
        self.network = network
        self._record, self._examples, self._settings = record, examples, settings
        self._augmentation, self._seed, self._validation = augmentation, seed, validation
        self._pictures: DevicePictures | None = None
        self._mean = torch.tensor(record.mean).view(1, 3, 1, 1)
        self._std = torch.tensor(record.std).view(1, 3, 1, 1)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Two groups: the backbone at a lower rate, and the head. The backbone's first blocks are frozen."""
        backbone, head = split_parameters(self.network, self._settings.frozen_blocks)
        return [{"params": backbone, "scale": self._settings.backbone_rate}, {"params": head, "scale": 1.0}]

    def loss(self, network: nn.Module, example_numbers: range, progress: float) -> dict[str, torch.Tensor]:
        """Squared error of the heatmaps, plus their spatial cross-entropy."""
        device = next(self.network.parameters()).device
        pixels, persons = self._crops(example_numbers, device)
        heatmaps = network(self._normalised(pixels).to(memory_format=torch.channels_last)).float()
        target, weight, present = (tensor.to(device) for tensor in heatmap_targets(persons, self._record.input_size_wh))
        squared = squared_error(heatmaps, target, weight)
        entropy = spatial_cross_entropy(heatmaps, target, weight * present)
        share = self._settings.cross_entropy / (3 if progress > 6 / 7 else 1)
        return {"loss": _SQUARED_ERROR_SCALE * squared + share * entropy, "mse": squared, "cross_entropy": entropy}

    def evaluate(self, network: nn.Module) -> Row:
        """AP, AP50 and AR in labelled boxes, measured by `posebatch.evaluation`."""
        if self._validation is None:
            return {}
        placement = Placement("cuda" if next(network.parameters()).is_cuda else "cpu")
        engine = start_engine(copy.deepcopy(network), self._record.input_size_wh, placement)
        ready = PoseNetwork(self._record, engine)
        accuracy = evaluate_keypoints(ready, self._validation, EstimatorSettings(), placement=placement)
        figures = accuracy.average_precision
        return {"AP": figures.ap, "AP50": figures.ap50, "AR": figures.ar}

    def _crops(self, example_numbers: Sequence[int], device: torch.device) -> tuple[torch.Tensor, list[PlacedPerson]]:
        """Crops of examples, (n, 3, h, w) RGB, 0..255, on the device, and the persons in them."""
        indices = [shuffled(number, len(self._examples), self._seed) for number in example_numbers]
        randoms = [np.random.default_rng([self._seed, number]) for number in example_numbers]
        size, augmentation = self._record.input_size_wh, self._augmentation
        if not self._settings.crops_on_device:
            crops = [
                crop_person(self._examples.read_image(index), self._examples.targets[index], size, augmentation, random)
                for index, random in zip(indices, randoms, strict=True)
            ]
            pixels = torch.from_numpy(np.stack([crop.pixels for crop in crops])).permute(0, 3, 1, 2)
            return pixels.to(device).float(), [crop.person for crop in crops]
        persons = [
            place_person(self._examples.targets[index], size, augmentation, random)
            for index, random in zip(indices, randoms, strict=True)
        ]
        if self._pictures is None:
            self._pictures = DevicePictures(self._examples, device)
        return vary_crops(self._pictures.crops(indices, persons, size), augmentation, randoms), persons

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        if self._record.channel_order == "BGR":
            pixels = pixels.flip(1)
        return (pixels / 255 - self._mean.to(pixels.device)) / self._std.to(pixels.device)


def heatmap_targets(
    persons: Sequence[PlacedPerson], size_wh: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Heatmaps (n, 17, h/4, w/4), weights (n, 17) and presence (n, 17). Edges of crop and heatmap coincide."""
    keypoints = (np.stack([person.keypoints for person in persons]) + 0.5) / HEATMAP_STRIDE - 0.5
    maps = encode_heatmaps(keypoints, (size_wh[0] // HEATMAP_STRIDE, size_wh[1] // HEATMAP_STRIDE))
    present = np.stack([person.present for person in persons]).astype(np.float32)
    weights = np.stack([person.weights for person in persons]).astype(np.float32)
    return torch.from_numpy(maps * present[..., None, None]), torch.from_numpy(weights), torch.from_numpy(present)


def squared_error(heatmaps: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean squared error of maps (n, k, h, w), weighted by joint (n, k)."""
    per_joint = (heatmaps - target).square().mean(dim=(2, 3))
    return (per_joint * weight).sum() / weight.sum().clamp(min=1e-6)


def spatial_cross_entropy(heatmaps: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of maps (n, k, h, w), each read as a distribution over its pixels, weighted by joint (n, k)."""
    log_share = (_TEMPERATURE * heatmaps).flatten(2).log_softmax(dim=2)
    wanted = target.flatten(2)
    wanted = wanted / wanted.sum(dim=2, keepdim=True).clamp(min=1e-6)
    per_joint = -(wanted * log_share).sum(dim=2)
    return (per_joint * weight).sum() / weight.sum().clamp(min=1e-6)


def split_parameters(network: nn.Module, frozen_blocks: int) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The learning parameters of backbone and head. Freezes the first ``frozen_blocks`` blocks, statistics included."""
    children = [child for name, child in network.named_children() if name not in _HEAD]
    blocks = [block for child in children for block in (child.children() if len(children) == 1 else (child,))]
    for block in blocks[:frozen_blocks]:
        block.requires_grad_(False).eval()
    backbone = [parameter for block in blocks for parameter in block.parameters() if parameter.requires_grad]
    head = [parameter for name in _HEAD for parameter in network.get_submodule(name).parameters()]
    return backbone, head
