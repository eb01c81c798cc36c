"""The training task of a detector: the loss of SSD (Liu et al., ECCV 2016), with regions to ignore.

Batch norms are folded as in `posebatch.training.pose_task`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it
from torch import nn
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou, generalized_box_iou_loss

from posebatch.evaluation.detector_accuracy import evaluate_detector, inclusive_settings
from posebatch.evaluation.labels import LabelledDataset
from posebatch.models.networks.boxes import anchor_boxes, decode_boxes
from posebatch.models.networks.engines import Placement
from posebatch.models.networks.person_detector import SSDLitePersonDetector
from posebatch.models.networks.preparation import fold_batch_norms
from posebatch.models.networks.ssdlite import INPUT_SIZE, build_person_ssd
from posebatch.models.weights.records import DetectorRecord
from posebatch.training.detector_augmentation import Canvas, SceneAugmentation, compose
from posebatch.training.detector_examples import SceneExamples, SceneTargets
from posebatch.training.loop import Row, shuffled

_POSITIVE_IOU: Final = 0.5
"""IoU from which an anchor is a positive."""


_NEGATIVE_IOU: Final = 0.4
"""IoU below which an anchor is a negative."""


_IGNORED_SHARE: Final = 0.5
"""An anchor of which a larger share lies in a region to ignore is no negative."""


_NEGATIVES_PER_POSITIVE: Final = 3


_LEAST_NEGATIVES: Final = 10
"""Negatives of a picture with few persons or none."""


@dataclass(frozen=True)
class DetectorTaskSettings:
    """Settings of the task; `LoopSettings` has those of the loop."""

    backbone_rate: float = 0.25
    """Learning rate of the backbone, as a factor on that of the rest."""
    fold_batch_norms: bool = True
    """Whether to fold batch norms: for a trained network. A network with random weights needs its batch norms."""
    frozen_blocks: int = 4
    """First blocks of the backbone that keep their weights."""
    box_weight: float = 2.0
    """Weight of the box loss; the class loss has weight 1."""


class DetectorNetwork(nn.Module):
    """Backbone and head without torchvision's pre- and postprocessing."""

    def __init__(self, ssd: SSD) -> None:
        super().__init__()
        self.backbone, self.head = ssd.backbone, ssd.head

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images (n, 3, 320, 320) to logits (n, anchors, 2) and box codes (n, anchors, 4)."""
        output = self.head(list(self.backbone(images).values()))
        return output["cls_logits"], output["bbox_regression"]


class DetectorTask:
    """A `posebatch.training.loop.Task`: one person detector on pictures with marked persons."""

    def __init__(
        self,
        ssd: SSD,
        record: DetectorRecord,
        examples: SceneExamples,
        settings: DetectorTaskSettings,
        augmentation: SceneAugmentation,
        seed: int,
        validation: LabelledDataset | None = None,
    ) -> None:
        self._anchors = anchor_boxes(ssd)
        ssd.train()
        if settings.fold_batch_norms:
            fold_batch_norms(ssd.eval())
        self.network: nn.Module = DetectorNetwork(ssd)
        self._examples, self._settings = examples, settings
        self._augmentation, self._seed, self._validation = augmentation, seed, validation
        self._record = record
        self._mean = torch.tensor(record.mean).view(1, 3, 1, 1)
        self._std = torch.tensor(record.std).view(1, 3, 1, 1)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Two groups: the backbone at a lower rate, and the rest. The backbone's first blocks are frozen."""
        stages = [self.network.get_submodule(f"backbone.{stage}") for stage in ("stage0", "stage1", "stage2")]
        blocks = [block for stage in stages for block in stage.children()]
        for block in blocks[: self._settings.frozen_blocks]:
            block.requires_grad_(False).eval()
        slow = [parameter for block in blocks for parameter in block.parameters() if parameter.requires_grad]
        in_backbone = {id(parameter) for block in blocks for parameter in block.parameters()}
        rest = [parameter for parameter in self.network.parameters() if id(parameter) not in in_backbone]
        return [{"params": slow, "scale": self._settings.backbone_rate}, {"params": rest, "scale": 1.0}]

    def loss(self, network: nn.Module, example_numbers: range, progress: float) -> dict[str, torch.Tensor]:
        """Cross-entropy with hard negatives, plus the generalised IoU loss of the boxes."""
        canvases = [self._canvas(number) for number in example_numbers]
        device = next(self.network.parameters()).device
        pixels = torch.from_numpy(np.stack([canvas.pixels for canvas in canvases])).permute(0, 3, 1, 2)
        images = (pixels.float() / 255 - self._mean) / self._std
        logits, codes = network(images.to(device, memory_format=torch.channels_last))
        anchors = self._anchors.to(device)
        matched = [match_anchors(anchors, canvas.targets) for canvas in canvases]
        positive = torch.stack([match.box >= 0 for match in matched])
        negative = torch.stack([match.negative for match in matched])
        classes = class_loss(logits.float(), positive, negative)
        image, anchor = positive.nonzero(as_tuple=True)
        true_boxes = torch.cat([match.boxes[match.box[match.box >= 0]] for match in matched])
        predicted = decode_boxes(codes.float()[image, anchor], anchors[anchor])
        boxes = generalized_box_iou_loss(predicted, true_boxes, reduction="sum") / max(len(true_boxes), 1)
        return {"loss": classes + self._settings.box_weight * boxes, "class_loss": classes, "box_loss": boxes}

    def evaluate(self, network: nn.Module) -> Row:
        """AP, AP50 and recall at precision 0.8, measured by `posebatch.evaluation`."""
        if self._validation is None:
            return {}
        placement = Placement("cuda" if next(network.parameters()).is_cuda else "cpu")
        ssd = build_person_ssd(self._record.architecture).eval()
        if self._settings.fold_batch_norms:
            fold_batch_norms(ssd)
        for part in ("backbone", "head"):
            ssd.get_submodule(part).load_state_dict(network.get_submodule(part).state_dict())
        detector = SSDLitePersonDetector.of(self._record, ssd, inclusive_settings(placement=placement))
        accuracy = evaluate_detector(detector, self._validation)
        return {
            "AP": accuracy.average_precision.ap,
            "AP50": accuracy.average_precision.ap50,
            "recall_at_precision_0.8": accuracy.recall_at_wanted_precision,
        }

    def _canvas(self, number: int) -> Canvas:
        random = np.random.default_rng([self._seed, number])
        picks = iter([shuffled(number, len(self._examples), self._seed), *random.integers(0, len(self._examples), 3)])

        def read() -> tuple[bytes, SceneTargets]:
            index = int(next(picks))
            return self._examples.read_image(index), self._examples.targets[index]

        return compose(read, INPUT_SIZE, self._augmentation, random)


@dataclass(frozen=True)
class AnchorMatch:
    """Targets of the anchors of one picture. An anchor that is neither positive nor negative has no loss."""

    boxes: torch.Tensor
    """(persons, 4) x1, y1, x2, y2, as shares of the picture's sides."""
    box: torch.Tensor
    """(anchors,) index of the person that a positive anchor matches, else -1."""
    negative: torch.Tensor
    """(anchors,) whether the anchor is a negative."""


def match_anchors(anchors: torch.Tensor, targets: SceneTargets) -> AnchorMatch:
    """Match anchors (a, 4): centre x, y, width, height, as shares of the picture's sides.

    An anchor matches the person that it overlaps most, from an IoU of 0.5 on. The anchor with the largest IoU for a
    person always matches that person.
    """
    edges = torch.cat([anchors[:, :2] - anchors[:, 2:] / 2, anchors[:, :2] + anchors[:, 2:] / 2], dim=1)
    all_boxes = torch.from_numpy(targets.boxes_xyxy / INPUT_SIZE).float().to(anchors.device)
    ignore = torch.from_numpy(targets.ignore).to(anchors.device)
    boxes, ignored = all_boxes[~ignore], all_boxes[ignore]
    negative = _share_inside(edges, ignored).amax(dim=1) <= _IGNORED_SHARE if len(ignored) else None
    negative = torch.ones(len(anchors), dtype=torch.bool, device=anchors.device) if negative is None else negative
    if len(boxes) == 0:
        return AnchorMatch(boxes, torch.full((len(anchors),), -1, device=anchors.device), negative)
    overlap = box_iou(edges, boxes)  # (anchors, persons)
    best, box = overlap.max(dim=1)
    box = torch.where(best >= _POSITIVE_IOU, box, -1)
    box[overlap.argmax(dim=0)] = torch.arange(len(boxes), device=anchors.device)
    return AnchorMatch(boxes, box, negative & (best < _NEGATIVE_IOU) & (box < 0))


def _share_inside(edges: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
    """(a, r) the share of each box (a, 4) that lies inside each region (r, 4)."""
    low = torch.maximum(edges[:, None, :2], regions[None, :, :2])
    high = torch.minimum(edges[:, None, 2:], regions[None, :, 2:])
    inside = (high - low).clamp(min=0).prod(dim=2)
    return inside / (edges[:, 2:] - edges[:, :2]).prod(dim=1).clamp(min=1e-9)[:, None]


def class_loss(logits: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over logits (n, a, 2) of all positives (n, a) and of the hardest negatives of each picture."""
    entropy = F.cross_entropy(logits.flatten(0, 1), positive.long().flatten(), reduction="none").view(positive.shape)
    count = (_NEGATIVES_PER_POSITIVE * positive.sum(dim=1, keepdim=True)).clamp(min=_LEAST_NEGATIVES)
    hardness = entropy.detach().masked_fill(~negative, -1.0)
    rank = hardness.argsort(dim=1, descending=True).argsort(dim=1)
    chosen = positive | (negative & (rank < count))
    return entropy[chosen].sum() / positive.sum().clamp(min=1)
