"""Finding the persons in frames: the embedded SSDLite on a fast path of our own, and torchvision's detectors.

Networks give boxes by their edges, with 0 at a frame's left edge. Here integer is a pixel's centre, so half a pixel is
taken off: a frame of width W spans -0.5 to W - 0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it
from torch import nn
from torchvision.models import get_model_builder
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import nms

from posebatch.models.inference import batch_size_for, pad_batch, prepare_network
from posebatch.models.registry import SSDLITE_ARCHITECTURES, DetectorRecord
from posebatch.models.ssdlite import INPUT_SIZE, build_person_ssd
from posebatch.models.weights import load_into, load_weights
from posebatch.types import Detections

_PERSON = 1
"""The label of a person, in the embedded network and in COCO."""

_MAX_CANDIDATES = 400
"""Boxes of one frame that enter the non-maximum suppression, the best ones: torchvision's default for SSD."""

_MAX_LOG_SCALE = math.log(1000 / 16)
"""A box's side is at most this times (as a logarithm) its anchor's."""

_MIN_BOX_SIDE = 1.0
"""Pixels. A thinner box, clipped at the frame's edge or not, holds nobody."""


@dataclass(frozen=True)
class DetectorSettings:
    """What of a detector's output is kept, and where it runs."""

    bbox_thr: float = 0.3
    """Boxes score more than this."""
    nms_thr: float = 0.5
    """Of two boxes that overlap more than this (IoU), the one with the lower score is dropped."""
    max_persons: int = 20
    """Boxes kept in one frame, the best ones."""
    device: str = "cpu"
    precision: torch.dtype = torch.float32


class PersonDetector(Protocol):
    """Finds persons in frames of one size."""

    record: DetectorRecord
    batch_size: int
    """Most frames of one call; the network always runs this many."""

    def detect(self, images: torch.Tensor) -> list[Detections]:
        """Frames (n, height, width, 3) uint8 RGB on any device, n <= ``batch_size`` -> the persons of each.

        A frame's persons do not depend on the other frames. Of equal scores the network's own order of boxes decides.
        """
        ...


def load_detector(name_or_path: str, settings: DetectorSettings) -> PersonDetector:
    """A detector ready to run, by registered name or weight file.

    Raises `WeightsError` when the name is unknown, the file does not hold exactly this network's weights, or
    torchvision's weights cannot be downloaded.
    """
    record, state = load_weights("detector", name_or_path)
    if record.architecture in SSDLITE_ARCHITECTURES:
        ssd = build_person_ssd(record.architecture)
        load_into(ssd, state, name_or_path)
        return SSDLitePersonDetector(record, ssd, settings)
    network = build_torchvision_detector(record.architecture, settings)
    load_into(network, state, name_or_path)
    return TorchvisionDetector(record, network, settings)


class SSDLitePersonDetector:
    """The embedded detector. Everything is done once for the whole batch; the only loop over frames is the last split.

    Gives the boxes of torchvision's own ``SSD.forward`` on equally resized input.
    """

    record: DetectorRecord
    batch_size: int

    def __init__(self, record: DetectorRecord, ssd: SSD, settings: DetectorSettings) -> None:
        self.record = record
        self.batch_size = batch_size_for(settings.device)
        self._settings = settings
        self._anchors = anchor_boxes(ssd).to(settings.device)
        prepare_network(ssd, settings.device, settings.precision)
        self._backbone = ssd.backbone
        self._head = ssd.head
        self._mean = 255 * torch.tensor(record.mean, device=settings.device).view(1, 3, 1, 1)
        self._std = 255 * torch.tensor(record.std, device=settings.device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def detect(self, images: torch.Tensor) -> list[Detections]:
        """See `PersonDetector.detect`."""
        n, height, width, _ = images.shape
        if n == 0:
            return []
        logits, codes = self._forward(self._preprocess(images))  # (batch, anchors, 2), (batch, anchors, 4)
        scores = logits[:n].softmax(dim=2)[:, :, _PERSON]  # (n, anchors)
        image, anchor, score = _best_candidates(scores, self._settings.bbox_thr)  # (candidates,) each
        edges = decode_boxes(codes[image, anchor], self._anchors[anchor])  # (candidates, 4) in units of the frame
        edges, kept = _clip_to_frame(edges * edges.new_tensor([width, height, width, height]), width, height)
        image, edges, score = image[kept], edges[kept], score[kept]
        kept = _nms_per_image(edges, score, image, self._settings.nms_thr)
        return _split_by_image(image[kept], edges[kept], score[kept], n, self._settings.max_persons)

    def _preprocess(self, images: torch.Tensor) -> torch.Tensor:
        """(n, height, width, 3) uint8 -> (batch_size, 3, 320, 320) normalised."""
        frames = images.to(self._settings.device).permute(0, 3, 1, 2)
        if frames.device.type != "cpu":
            frames = frames.float()  # only the CPU's antialiased resize takes uint8
        # Antialiased, because boxes should not depend on how large the frame is, and because it is the cheap one.
        # Against torchvision's plain bilinear resize, on 178 images of COCO val2017 (388 persons): AP50 .731 / .735
        # and recall at score .3 .755 / .747; on the same images enlarged 3 times, as large as HD video, AP50
        # .729 / .726 and recall .753 / .727. On uint8 it takes 1.2 to 1.9 ms for a 1080p frame on one Zen 3 thread,
        # the plain one on float32 takes 18.
        resized = F.interpolate(frames, size=(INPUT_SIZE, INPUT_SIZE), mode="bilinear", antialias=True)
        return pad_batch((resized.float() - self._mean) / self._std, self.batch_size)

    def _forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Class logits (batch, anchors, 2) and box codes (batch, anchors, 4), float32."""
        x = x.to(self._settings.precision, memory_format=torch.channels_last)
        output = self._head(list(self._backbone(x).values()))
        return output["cls_logits"].float(), output["bbox_regression"].float()


class TorchvisionDetector:
    """One of torchvision's detectors; it resizes and normalises by itself."""

    record: DetectorRecord
    batch_size: int

    def __init__(self, record: DetectorRecord, network: nn.Module, settings: DetectorSettings) -> None:
        self.record = record
        # Faster R-CNN puts the proposals of all images into one matrix, whose size, and with it the rounding, would
        # depend on the neighbours. The others keep images apart.
        self.batch_size = 1 if record.architecture.startswith("fasterrcnn") else batch_size_for(settings.device)
        self._settings = settings
        self._network = network.eval().requires_grad_(False).to(settings.device)

    @torch.inference_mode()
    def detect(self, images: torch.Tensor) -> list[Detections]:
        """See `PersonDetector.detect`."""
        n, height, width, _ = images.shape
        if n == 0:
            return []
        frames = images.to(self._settings.device).permute(0, 3, 1, 2).float() / 255
        precision = self._settings.precision
        with torch.autocast(frames.device.type, dtype=precision, enabled=precision != torch.float32):
            outputs = self._network(list(pad_batch(frames, self.batch_size)))[:n]
        persons = [output["labels"] == _PERSON for output in outputs]
        edges = torch.cat([output["boxes"][person] for output, person in zip(outputs, persons, strict=True)]).float()
        score = torch.cat([output["scores"][person] for output, person in zip(outputs, persons, strict=True)]).float()
        image = torch.arange(n, device=edges.device).repeat_interleave(
            torch.stack([person.sum() for person in persons])
        )
        edges, kept = _clip_to_frame(edges, width, height)
        image, edges, score = image[kept], edges[kept], score[kept]
        order = _order_by_image_and_score(image, score)
        return _split_by_image(image[order], edges[order], score[order], n, self._settings.max_persons)


def build_torchvision_detector(architecture: str, settings: DetectorSettings) -> nn.Module:
    """One of torchvision's detectors with COCO's 91 labels, freshly initialised; nothing is downloaded."""
    prefix = "box_" if architecture.startswith("fasterrcnn") else ""
    thresholds = {f"{prefix}score_thresh": settings.bbox_thr, f"{prefix}nms_thresh": settings.nms_thr}
    network: nn.Module = get_model_builder(architecture)(weights=None, weights_backbone=None, **thresholds)
    return network


def anchor_boxes(ssd: SSD) -> torch.Tensor:
    """The default boxes (anchors, 4) as centre x, y, width, height in units of the frame."""
    blank = torch.zeros(1, 3, INPUT_SIZE, INPUT_SIZE, device=next(ssd.parameters()).device)
    with torch.inference_mode():
        maps = list(ssd.backbone.eval()(blank).values())
    corners = ssd.anchor_generator(ImageList(blank, [(INPUT_SIZE, INPUT_SIZE)]), maps)[0] / INPUT_SIZE
    return torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], dim=1)


def _best_candidates(scores: torch.Tensor, bbox_thr: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The boxes above the threshold, at most `_MAX_CANDIDATES` of an image: image, anchor and score of each.

    (n, anchors) -> three (candidates,), by image, then by falling score, then by anchor.
    """
    image, anchor = (scores > bbox_thr).nonzero(as_tuple=True)
    score = scores[image, anchor]
    order = _order_by_image_and_score(image, score)
    order = order[_rank_in_image(image[order], len(scores)) < _MAX_CANDIDATES]
    return image[order], anchor[order], score[order]


def decode_boxes(codes: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """Box codes and their anchors, (k, 4) each -> edges x1, y1, x2, y2 in units of the frame.

    Source: torchvision's ``BoxCoder`` with SSD's weights 10, 10, 5, 5, and its limit against overflow.
    """
    centre = anchors[:, :2] + codes[:, :2] / 10 * anchors[:, 2:]
    half = (codes[:, 2:] / 5).clamp(max=_MAX_LOG_SCALE).exp() * anchors[:, 2:] / 2
    return torch.cat([centre - half, centre + half], dim=1)


def _clip_to_frame(edges: torch.Tensor, width: int, height: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clip edges (k, 4) to the frame; the mask (k,) says which are still boxes."""
    limit = edges.new_tensor([width, height, width, height])
    clipped = edges.clamp(min=0).minimum(limit)
    return clipped, (clipped[:, 2:] - clipped[:, :2] >= _MIN_BOX_SIDE).all(dim=1)


def _nms_per_image(edges: torch.Tensor, score: torch.Tensor, image: torch.Tensor, nms_thr: float) -> torch.Tensor:
    """Indices of the boxes that survive non-maximum suppression among those of their own image, ascending.

    All images are laid side by side for one call. In float64 the sums are exact, so a box's place among the others
    does not change its overlaps; torchvision's ``batched_nms`` does the same in float32, where it can.
    """
    if len(edges) == 0:
        return image
    side_by_side = edges.double() + (image * (edges.max().double() + 1))[:, None]
    return nms(side_by_side, score.double(), nms_thr).sort().values


def _order_by_image_and_score(image: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
    """The permutation that sorts by image, then by falling score, keeping the order of equals."""
    by_score = score.argsort(descending=True, stable=True)
    return by_score[image[by_score].argsort(stable=True)]


def _rank_in_image(image: torch.Tensor, num_images: int) -> torch.Tensor:
    """Position of each entry among those of its image, from 0; ``image`` ascends."""
    counts = image.bincount(minlength=num_images)
    starts = counts.cumsum(0) - counts
    return torch.arange(len(image), device=image.device) - starts[image]


def _split_by_image(
    image: torch.Tensor, edges: torch.Tensor, score: torch.Tensor, num_images: int, max_persons: int
) -> list[Detections]:
    """Boxes sorted by image and falling score -> the best of each image, in pixel coordinates."""
    kept = _rank_in_image(image, num_images) < max_persons
    counts = image[kept].bincount(minlength=num_images).tolist()
    boxes, scores = torch.split((edges[kept] - 0.5).cpu(), counts), torch.split(score[kept].cpu(), counts)
    return [Detections(b.numpy(), s.numpy()) for b, s in zip(boxes, scores, strict=True)]
