"""Labelled images and the persons in them.

Coordinates are pixels; an integer is a pixel's centre. COCO's boxes count from a pixel's edge, so half a pixel is
subtracted when they are read and added when they are written. COCO's keypoints name pixels and stay as they are.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from posebatch.core.errors import InputError
from posebatch.core.frames import Detections, check_array
from posebatch.core.skeleton import NUM_KEYPOINTS

AREA_OF_BOX: Final = 0.53
"""Area of a person relative to the box, if the labels have no area: the mean over COCO's masks."""


GROUND_TRUTH: Final = "gt"
"""Names the labelled boxes as a source of boxes."""


@dataclass(frozen=True)
class LabelledPersons:
    """The labelled persons of one image."""

    bbox_xyxy: NDArray[np.float64]
    """(n, 4) x1, y1, x2, y2 in pixels."""
    keypoints: NDArray[np.float64]
    """(n, 17, 3) x, y in pixels, and COCO's visibility: 0 not labelled, 1 hidden, 2 visible."""
    area: NDArray[np.float64]
    """(n,) square pixels, of the mask if there is one. OKS takes the area as its scale."""
    ignored: NDArray[np.bool_]
    """(n,) crowds and doubtful boxes: a result there counts neither as right nor as wrong."""

    def __post_init__(self) -> None:
        n = len(self.bbox_xyxy)
        check_array("bbox_xyxy", self.bbox_xyxy, np.float64, (n, 4))
        check_array("keypoints", self.keypoints, np.float64, (n, NUM_KEYPOINTS, 3))
        check_array("area", self.area, np.float64, (n,))
        check_array("ignored", self.ignored, np.bool_, (n,))

    def __len__(self) -> int:
        return len(self.area)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(n, 17) which joints have a label."""
        return self.keypoints[:, :, 2] > 0

    @property
    def posed(self) -> NDArray[np.intp]:
        """Indices of the persons whose pose is measured: not ignored, with a labelled joint and a box of some area."""
        sides = self.bbox_xyxy[:, 2:] - self.bbox_xyxy[:, :2]
        return np.flatnonzero(~self.ignored & self.labelled.any(axis=1) & (sides > 0).all(axis=1))

    @classmethod
    def from_coco(
        cls,
        boxes_xywh: NDArray[np.float64],
        keypoints: NDArray[np.float64] | None = None,
        area: NDArray[np.float64] | None = None,
        ignored: NDArray[np.bool_] | None = None,
    ) -> LabelledPersons:
        """From COCO's boxes (n, 4) x, y, width, height. Unknown areas, None or nan, are estimated from the boxes."""
        n = len(boxes_xywh)
        estimated = AREA_OF_BOX * boxes_xywh[:, 2] * boxes_xywh[:, 3]
        return cls(
            xywh_to_xyxy(boxes_xywh),
            np.zeros((n, NUM_KEYPOINTS, 3)) if keypoints is None else keypoints,
            estimated if area is None else np.where(np.isnan(area), estimated, area),
            np.zeros(n, bool) if ignored is None else ignored,
        )


@dataclass(frozen=True)
class LabelledImage:
    """An image with its labels. `pixels` decodes it."""

    name: str
    """File name, for messages."""
    image_id: int
    """Id in detection files."""
    width: int
    height: int
    source: bytes | Path
    """The encoded image, or its file."""
    persons: LabelledPersons

    def pixels(self) -> NDArray[np.uint8]:
        """(height, width, 3) RGB. Raises `InputError` if it cannot be decoded or its size is not the labelled one."""
        try:
            with Image.open(io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source) as image:
                pixels = np.array(image.convert("RGB"))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"image {self.name} cannot be decoded: {error}") from error
        if pixels.shape[:2] != (self.height, self.width):
            raise InputError(
                f"image {self.name} is {pixels.shape[1]} x {pixels.shape[0]} pixels, its labels are for "
                f"{self.width} x {self.height}: these are not the images of these labels"
            )
        return pixels


@dataclass(frozen=True)
class LabelledDataset:
    """Images and the persons in them."""

    name: str
    images: tuple[LabelledImage, ...]
    has_keypoints: bool
    """False for labels that hold boxes alone."""

    @property
    def num_persons(self) -> int:
        """Labelled persons whose box counts."""
        return sum(int((~image.persons.ignored).sum()) for image in self.images)

    @property
    def num_posed(self) -> int:
        """Labelled persons whose pose is measured."""
        return sum(len(image.persons.posed) for image in self.images)


HALVES: Final = ("even", "odd")
"""Halves of a dataset: the images with even or odd numbers, counted from 0."""


def half_of(dataset: LabelledDataset, half: str) -> LabelledDataset:
    """The images of one of `HALVES`: so one half can be measured with what was fitted to the other."""
    images = dataset.images[HALVES.index(half) :: len(HALVES)]
    return replace(dataset, name=f"{dataset.name}, {half} images", images=images)


def true_boxes(dataset: LabelledDataset) -> list[Detections]:
    """The labelled boxes of the persons whose pose is measured, as detections of score 1."""
    boxes = [image.persons.bbox_xyxy[image.persons.posed].astype(np.float32) for image in dataset.images]
    return [Detections(box, np.ones(len(box), np.float32)) for box in boxes]


def best_boxes(detections: Sequence[Detections], bbox_thr: float, max_persons: int) -> list[Detections]:
    """The boxes that score more than ``bbox_thr``, at most ``max_persons`` per image."""
    kept = [min(int((persons.scores > bbox_thr).sum()), max_persons) for persons in detections]
    return [Detections(persons.bbox_xyxy[:n], persons.scores[:n]) for persons, n in zip(detections, kept, strict=True)]


def xywh_to_xyxy(boxes_xywh: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """COCO's boxes (n, 4) x, y, width, height, counted from pixel edges, to x1, y1, x2, y2 from pixel centres."""
    boxes = boxes_xywh.astype(np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1) - 0.5


def xyxy_to_xywh(bbox_xyxy: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The inverse of `xywh_to_xyxy`."""
    boxes = bbox_xyxy.astype(np.float64)
    return np.concatenate([boxes[:, :2] + 0.5, boxes[:, 2:] - boxes[:, :2]], axis=1)
