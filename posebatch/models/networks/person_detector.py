"""Person detectors: the embedded SSDLite on a fast path of our own, and torchvision's detectors.

In a network's boxes, 0 is the left edge of the frame. Here integers are pixel centres and a frame of width W spans -0.5
to W - 0.5, so half a pixel is subtracted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from typing_extensions import override

from posebatch.core.frames import Detections
from posebatch.models.networks.boxes import (
    anchor_boxes,
    best_candidates,
    clip_to_frame,
    decode_boxes,
    nms_per_image,
    order_by_image_and_score,
    split_by_image,
)
from posebatch.models.networks.engines import DTYPES, PLAIN, Engine, Placement, start_engine, start_quantized
from posebatch.models.networks.input_size import check_detect_size
from posebatch.models.networks.pixels import Pixels
from posebatch.models.networks.preparation import pad_batch
from posebatch.models.networks.ssdlite import INPUT_SIZE, build_person_ssd
from posebatch.models.networks.vision import SSD, get_model_builder
from posebatch.models.weights.files import load_into, load_weights
from posebatch.models.weights.names import resolve
from posebatch.models.weights.quantized import load_quantized
from posebatch.models.weights.records import SSDLITE_ARCHITECTURES, DetectorRecord

_BACKGROUND, _PERSON = 0, 1
"""Labels of the embedded network. COCO has the same label for persons."""


@dataclass(frozen=True)
class DetectorSettings:
    """Thresholds of a detector, its device and its input size."""

    bbox_thr: float = 0.3
    """Boxes with a score up to this are dropped."""
    nms_thr: float = 0.5
    """Of two boxes with a greater IoU, the one with the lower score is dropped."""
    max_persons: int = 20
    """Most boxes kept in one frame, the best ones."""
    placement: Placement = PLAIN
    input_size: int = INPUT_SIZE
    """Side of the square input of our SSDLite, pixels: a multiple of 160, at least `INPUT_SIZE`."""


class PersonDetector(Protocol):
    """Finds persons in frames of one size."""

    record: DetectorRecord

    @property
    def batch_size(self) -> int:
        """Most frames in one call. The network always runs this many."""
        ...

    def detect(self, frames: Pixels) -> list[Detections]:
        """The persons in each of at most ``batch_size`` frames.

        The persons of a frame do not depend on the other frames. Equal scores keep the network's own order of boxes.
        """
        ...


def load_detector(name_or_path: str, settings: DetectorSettings) -> PersonDetector:
    """Load a detector by registered name or weight file.

    Raises `WeightsError` when the name is unknown, when the file does not hold exactly this network's weights, when a
    download fails, or when there is no 8-bit version and the placement needs one. Raises `SettingsError` when the
    network does not support the input size.
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


class SSDLitePersonDetector(PersonDetector):
    """The embedded detector, with operations on whole batches: only the last split loops over frames.

    The boxes are those of torchvision's own ``SSD.forward`` on equally resized input.
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
        """A detector with the network of a torchvision SSD. The network is changed: it is prepared to run."""
        size = settings.input_size
        anchors = anchor_boxes(ssd, size)
        engine = start_engine(BoxNetwork(ssd), (size, size), settings.placement, keep=True)
        return cls(record, engine, anchors, settings)

    @property
    @override
    def batch_size(self) -> int:
        return self._engine.batch_size

    @override
    @torch.inference_mode()
    def detect(self, frames: Pixels) -> list[Detections]:
        n, (width, height) = len(frames), frames.size_wh
        if n == 0:
            return []
        logits, codes = self._engine(self._preprocess(frames))  # (batch, anchors, 2), (batch, anchors, 4)
        # This is the softmax of two classes. torch's softmax takes 50 times as long: 2.5 ms for 4 frames on one Zen 4
        # thread.
        scores = (logits[:n, :, _PERSON] - logits[:n, :, _BACKGROUND]).sigmoid()  # (n, anchors)
        image, anchor, score = best_candidates(scores, self._settings.bbox_thr)  # (candidates,) each
        edges = decode_boxes(codes[image, anchor], self._anchors[anchor])  # (candidates, 4) in units of the frame
        edges, kept = clip_to_frame(edges * edges.new_tensor([width, height, width, height]), width, height)
        image, edges, score = image[kept], edges[kept], score[kept]
        kept = nms_per_image(edges, score, image, self._settings.nms_thr)
        return split_by_image(image[kept], edges[kept], score[kept], n, self._settings.max_persons)

    def _preprocess(self, frames: Pixels) -> torch.Tensor:
        """Resize and normalise frames -> (n, 3, side, side) float32."""
        # With antialiasing boxes depend less on the size of the frame, and on uint8 it is the faster way. Antialiased
        # against torchvision's plain bilinear resize, on 178 images of COCO val2017 (388 persons): AP50 .731 / .735,
        # recall at score .3 .755 / .747. On the same images enlarged 3 times, the size of HD video: AP50 .729 / .726,
        # recall .753 / .727.
        resized = frames.resized(self._size_wh).to(self._engine.device)
        return resized.sub_(self._mean).div_(self._std)


class BoxNetwork(nn.Module):
    """Backbone and head of an SSD: (n, 3, side, side) -> class logits (n, anchors, 2), box codes (n, anchors, 4)."""

    def __init__(self, ssd: SSD) -> None:
        super().__init__()
        self.backbone, self.head = ssd.backbone, ssd.head

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Class logits and box codes of normalised images."""
        output = self.head(list(self.backbone(x).values()))
        return output["cls_logits"], output["bbox_regression"]


class TorchvisionDetector(PersonDetector):
    """One of torchvision's detectors, which resizes and normalises by itself."""

    def __init__(self, record: DetectorRecord, network: nn.Module, settings: DetectorSettings) -> None:
        self.record = record
        # Faster R-CNN puts the proposals of all images into one matrix. Its size, and with it the rounding, would
        # depend on the other images of the batch. The other detectors keep images apart.
        self._batch_size = 1 if record.architecture.startswith("fasterrcnn") else settings.placement.batch_size
        self._settings = settings
        self._network = network.eval().requires_grad_(False).to(settings.placement.device)

    @property
    @override
    def batch_size(self) -> int:
        return self._batch_size

    @override
    @torch.inference_mode()
    def detect(self, frames: Pixels) -> list[Detections]:
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
        edges, kept = clip_to_frame(edges, width, height)
        image, edges, score = image[kept], edges[kept], score[kept]
        order = order_by_image_and_score(image, score)
        return split_by_image(image[order], edges[order], score[order], n, self._settings.max_persons)


def build_torchvision_detector(architecture: str, settings: DetectorSettings) -> nn.Module:
    """Build one of torchvision's detectors with COCO's 91 labels and random weights; nothing is downloaded."""
    prefix = "box_" if architecture.startswith("fasterrcnn") else ""
    thresholds = {f"{prefix}score_thresh": settings.bbox_thr, f"{prefix}nms_thresh": settings.nms_thr}
    network: nn.Module = get_model_builder(architecture)(weights=None, weights_backbone=None, **thresholds)
    return network
