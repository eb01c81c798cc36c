"""Finding the persons in frames: the embedded SSDLite on a fast path of our own, and torchvision's detectors.

Networks give boxes by their edges, with 0 at a frame's left edge. Here integer is a pixel's centre, so half a pixel is
taken off: a frame of width W spans -0.5 to W - 0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torchvision.models import get_model_builder
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import nms

from posebatch.models.engines import DTYPES, PLAIN, Engine, Placement, start_engine, start_quantized
from posebatch.models.inference import pad_batch
from posebatch.models.input_size import check_detect_size
from posebatch.models.quantized import load_quantized
from posebatch.models.registry import SSDLITE_ARCHITECTURES, DetectorRecord, resolve
from posebatch.models.ssdlite import INPUT_SIZE, STRIDES, build_person_ssd
from posebatch.models.weights import load_into, load_weights
from posebatch.pixels import Pixels
from posebatch.types import Detections

_BACKGROUND, _PERSON = 0, 1
"""Labels in the embedded network; a person's is that of COCO too."""

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
    placement: Placement = PLAIN
    input_size: int = INPUT_SIZE
    """Side of the square to which our SSDLite resizes every picture, pixels; a multiple of 160 from `INPUT_SIZE` on."""


class PersonDetector(Protocol):
    """Finds persons in frames of one size."""

    record: DetectorRecord

    @property
    def batch_size(self) -> int:
        """Most frames of one call; the network always runs this many."""
        ...

    def detect(self, frames: Pixels) -> list[Detections]:
        """Frames, at most ``batch_size`` of them -> the persons of each.

        A frame's persons do not depend on the other frames. Of equal scores the network's own order of boxes decides.
        """
        ...


def load_detector(name_or_path: str, settings: DetectorSettings) -> PersonDetector:
    """A detector ready to run, by registered name or weight file.

    Raises `WeightsError` when the name is unknown, the file does not hold exactly this network's weights, or
    torchvision's weights cannot be downloaded, or an 8-bit version is asked for and not there; `SettingsError` when the
    network does not take the input size.
    """
    if settings.placement.precision == "int8":
        return _load_quantized_detector(name_or_path, settings)
    record, state = load_weights("detector", name_or_path)
    if record.architecture in SSDLITE_ARCHITECTURES:
        ssd = build_person_ssd(record.architecture)
        load_into(ssd, state, name_or_path)
        return SSDLitePersonDetector.of(record, ssd, settings)
    check_detect_size(str(settings.input_size), name_or_path, record.architecture)
    network = build_torchvision_detector(record.architecture, settings)
    load_into(network, state, name_or_path)
    return TorchvisionDetector(record, network, settings)


def _load_quantized_detector(name_or_path: str, settings: DetectorSettings) -> PersonDetector:
    record = resolve("detector", name_or_path)
    network = load_quantized("detector", name_or_path)
    size = settings.input_size
    anchors = anchor_boxes(build_person_ssd(record.architecture), size)
    engine = start_quantized(network, (size, size), settings.placement)
    return SSDLitePersonDetector(record, engine, anchors, settings)


class SSDLitePersonDetector:
    """The embedded detector. Everything is done once for the whole batch; the only loop over frames is the last split.

    Gives the boxes of torchvision's own ``SSD.forward`` on equally resized input.
    """

    def __init__(
        self, record: DetectorRecord, engine: Engine, anchors: torch.Tensor, settings: DetectorSettings
    ) -> None:
        self.record, self._engine, self._settings = record, engine, settings
        self._size_wh = (settings.input_size, settings.input_size)
        self._anchors = anchors.to(engine.device)
        self._mean = 255 * torch.tensor(record.mean, device=engine.device).view(1, 3, 1, 1)
        self._std = 255 * torch.tensor(record.std, device=engine.device).view(1, 3, 1, 1)

    @classmethod
    def of(cls, record: DetectorRecord, ssd: SSD, settings: DetectorSettings) -> SSDLitePersonDetector:
        """With the network of a torchvision SSD, which is changed: it is made ready to run."""
        size = settings.input_size
        anchors = anchor_boxes(ssd, size)
        engine = start_engine(BoxNetwork(ssd), (size, size), settings.placement)
        return cls(record, engine, anchors, settings)

    @property
    def batch_size(self) -> int:
        """See `PersonDetector.batch_size`."""
        return self._engine.batch_size

    @torch.inference_mode()
    def detect(self, frames: Pixels) -> list[Detections]:
        """See `PersonDetector.detect`."""
        n, (width, height) = len(frames), frames.size_wh
        if n == 0:
            return []
        logits, codes = self._engine(self._preprocess(frames))  # (batch, anchors, 2), (batch, anchors, 4)
        # The softmax of two classes, which as such takes 50 times as long: 2.5 ms for a batch of 4 on one Zen 4 thread.
        scores = (logits[:n, :, _PERSON] - logits[:n, :, _BACKGROUND]).sigmoid()  # (n, anchors)
        image, anchor, score = _best_candidates(scores, self._settings.bbox_thr)  # (candidates,) each
        edges = decode_boxes(codes[image, anchor], self._anchors[anchor])  # (candidates, 4) in units of the frame
        edges, kept = _clip_to_frame(edges * edges.new_tensor([width, height, width, height]), width, height)
        image, edges, score = image[kept], edges[kept], score[kept]
        kept = _nms_per_image(edges, score, image, self._settings.nms_thr)
        return _split_by_image(image[kept], edges[kept], score[kept], n, self._settings.max_persons)

    def _preprocess(self, frames: Pixels) -> torch.Tensor:
        """-> (n, 3, side, side) normalised."""
        # Antialiased, because boxes should not depend on how large the frame is, and because it is the cheap one.
        # Against torchvision's plain bilinear resize, on 178 images of COCO val2017 (388 persons): AP50 .731 / .735
        # and recall at score .3 .755 / .747; on the same images enlarged 3 times, as large as HD video, AP50
        # .729 / .726 and recall .753 / .727.
        resized = frames.resized(self._size_wh).to(self._engine.device)
        return resized.sub_(self._mean).div_(self._std)


class BoxNetwork(nn.Module):
    """What of an SSD is a network: (n, 3, side, side) -> class logits (n, anchors, 2), box codes (n, anchors, 4)."""

    def __init__(self, ssd: SSD) -> None:
        super().__init__()
        self.backbone, self.head = ssd.backbone, ssd.head

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and codes."""
        output = self.head(list(self.backbone(x).values()))
        return output["cls_logits"], output["bbox_regression"]


class TorchvisionDetector:
    """One of torchvision's detectors; it resizes and normalises by itself."""

    record: DetectorRecord
    batch_size: int

    def __init__(self, record: DetectorRecord, network: nn.Module, settings: DetectorSettings) -> None:
        self.record = record
        # Faster R-CNN puts the proposals of all images into one matrix, whose size, and with it the rounding, would
        # depend on the neighbours. The others keep images apart.
        self.batch_size = 1 if record.architecture.startswith("fasterrcnn") else settings.placement.batch_size
        self._settings = settings
        self._network = network.eval().requires_grad_(False).to(settings.placement.device)

    @torch.inference_mode()
    def detect(self, frames: Pixels) -> list[Detections]:
        """See `PersonDetector.detect`."""
        n, (width, height) = len(frames), frames.size_wh
        if n == 0:
            return []
        images = frames.rgb().to(self._settings.placement.device) / 255
        precision = DTYPES[self._settings.placement.precision]
        with torch.autocast(images.device.type, dtype=precision, enabled=precision != torch.float32):
            outputs = self._network(list(pad_batch(images, self.batch_size)))[:n]
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


def anchor_boxes(ssd: SSD, input_size: int = INPUT_SIZE) -> torch.Tensor:
    """The default boxes (anchors, 4) as centre x, y, width, height in units of the picture.

    At a larger input size than the trained one they keep their size in pixels of the input, and there are more of them.
    """
    trained, map_sides = _trained_boxes(ssd)
    if input_size == INPUT_SIZE:
        return trained
    larger, first, device = [], 0, trained.device
    locations = zip(map_sides, STRIDES, ssd.anchor_generator.num_anchors_per_location(), strict=True)
    for map_side, stride, each in locations:
        sizes = INPUT_SIZE * trained[first : first + each, 2:]  # (each, 2) pixels, the same at every location
        first += map_side**2 * each
        # Each map looks at every second location of the one before, from the first on. So the first location of the two
        # coarsest maps looks where that of the map of stride 64 does; there, at 320, the mean of their boxes lies too.
        places = torch.arange(-(-input_size // stride), device=device) * stride + min(stride, STRIDES[3]) / 2
        y, x = torch.meshgrid(places, places, indexing="ij")
        centres = torch.stack([x.flatten(), y.flatten()], dim=1)  # (locations, 2)
        larger.append(torch.cat([centres.repeat_interleave(each, dim=0), sizes.repeat(len(centres), 1)], dim=1))
    return torch.cat(larger) / input_size


def _trained_boxes(ssd: SSD) -> tuple[torch.Tensor, list[int]]:
    """torchvision's default boxes at the trained size, in units of the picture, and the side of each feature map."""
    blank = torch.zeros(1, 3, INPUT_SIZE, INPUT_SIZE, device=next(ssd.parameters()).device)
    with torch.inference_mode():
        maps = list(ssd.backbone.eval()(blank).values())
    corners = ssd.anchor_generator(ImageList(blank, [(INPUT_SIZE, INPUT_SIZE)]), maps)[0] / INPUT_SIZE
    boxes = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], dim=1)
    return boxes, [feature_map.shape[-1] for feature_map in maps]


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
    left_out = image[~kept].bincount(minlength=num_images).tolist()
    boxes, scores = torch.split((edges[kept] - 0.5).cpu(), counts), torch.split(score[kept].cpu(), counts)
    parts = zip(boxes, scores, left_out, strict=True)
    return [Detections(box.numpy(), score.numpy(), more) for box, score, more in parts]
