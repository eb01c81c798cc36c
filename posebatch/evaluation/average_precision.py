"""COCO's average precision and recall, computed by pycocotools with its output suppressed."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from posebatch.core.frames import Detections, FramePoses
from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.evaluation.labels import LabelledDataset, xyxy_to_xywh

if TYPE_CHECKING:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

THRESHOLDS: Final = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
"""The similarities (OKS or IoU) over which COCO averages."""


_PERSON: Final = 1


_DETECTIONS_PER_IMAGE: Final = 100
"""COCO's limit for boxes. Its limit for poses is 20."""


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's figures, 0..1, over the persons of all images; nan if no person is labelled.

    ``medium`` persons have an area of 32^2 to 96^2 square pixels, ``large`` persons a larger one. AR is the share of
    persons found with the most results that COCO allows per image: 20 poses, 100 boxes.
    """

    ap: float
    """Mean of ``ap_by_threshold``."""
    ap50: float
    ap75: float
    ap_medium: float
    ap_large: float
    ar: float
    ar50: float
    ar75: float
    ar_medium: float
    ar_large: float
    ap_by_threshold: tuple[float, ...]
    """At each of `THRESHOLDS`."""


@dataclass(frozen=True)
class RankedDetections:
    """All boxes of all images by descending score, right or wrong at IoU 0.5, without those on ignored persons."""

    scores: NDArray[np.float64]
    """(n,) descending."""
    correct: NDArray[np.bool_]
    """(n,) whether the box matches a person that no better box matches."""
    persons: int
    """Labelled persons."""

    @property
    def recall(self) -> NDArray[np.float64]:
        """(n,) share of the persons found by the boxes up to and including each box."""
        return self.correct.cumsum() / max(self.persons, 1)

    @property
    def precision(self) -> NDArray[np.float64]:
        """(n,) share of right boxes among those up to and including each box."""
        return self.correct.cumsum() / np.arange(1, len(self.correct) + 1)


def pose_average_precision(dataset: LabelledDataset, poses: Sequence[FramePoses]) -> AveragePrecision:
    """COCO's keypoint AP. ``poses`` has one entry per image of the dataset."""
    results = [
        {
            "image_id": number,
            "keypoints": person.ravel().tolist(),
            "score": float(score),
            "area": float(np.ptp(person[:, :2], axis=0).prod()),
        }
        for number, image in enumerate(poses)
        for person, score in zip(image.keypoints.astype(np.float64), image.pose_scores, strict=True)
    ]
    return _figures(_evaluate(dataset, results, "keypoints"), most=20)


def box_average_precision(
    dataset: LabelledDataset, detections: Sequence[Detections]
) -> tuple[AveragePrecision, RankedDetections]:
    """COCO's box AP, and which boxes are right at IoU 0.5. ``detections`` has one entry per image of the dataset."""
    results = [
        {"image_id": number, "bbox": box.tolist(), "score": float(score), "area": float(box[2] * box[3])}
        for number, image in enumerate(detections)
        for box, score in zip(xyxy_to_xywh(image.bbox_xyxy), image.scores, strict=True)
    ]
    evaluation = _evaluate(dataset, results, "bbox")
    return _figures(evaluation, most=_DETECTIONS_PER_IMAGE), _ranked(evaluation, len(dataset.images))


def _evaluate(dataset: LabelledDataset, results: list[dict[str, Any]], kind: Literal["keypoints", "bbox"]) -> COCOeval:
    from pycocotools.cocoeval import COCOeval  # noqa: PLC0415 - optional

    labels = [
        {
            "image_id": number,
            "bbox": box.tolist(),
            "keypoints": keypoints.ravel().tolist(),
            "num_keypoints": int((keypoints[:, 2] > 0).sum()),
            "area": float(area),
            "iscrowd": int(ignored),
        }
        for number, image in enumerate(dataset.images)
        for box, keypoints, area, ignored in zip(
            xyxy_to_xywh(image.persons.bbox_xyxy),
            image.persons.keypoints,
            image.persons.area,
            image.persons.ignored,
            strict=True,
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_coco(len(dataset.images), labels), _coco(len(dataset.images), results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _coco(num_images: int, annotations: list[dict[str, Any]]) -> COCO:
    """An index over annotations. Ids count from 1: pycocotools reads 0 as "no match"."""
    from pycocotools.coco import COCO  # noqa: PLC0415 - optional

    coco = COCO()
    coco.dataset = {
        "images": [{"id": number} for number in range(num_images)],
        "annotations": [
            {"iscrowd": 0, **annotation, "id": number, "category_id": _PERSON}
            for number, annotation in enumerate(annotations, start=1)
        ],
        "categories": [{"id": _PERSON, "name": "person", "keypoints": list(KEYPOINT_NAMES)}],
    }
    coco.createIndex()
    return coco


def _figures(evaluation: COCOeval, most: int) -> AveragePrecision:
    """The figures that ``COCOeval.summarize`` prints, with at most ``most`` results per image."""
    sizes, limit = evaluation.params.areaRngLbl, evaluation.params.maxDets.index(most)
    precision = evaluation.eval["precision"][:, :, 0, :, limit].mean(axis=1)  # (thresholds, sizes), -1: no person
    recall = evaluation.eval["recall"][:, 0, :, limit]

    def figure(table: NDArray[np.float64], size: str = "all", threshold: float | None = None) -> float:
        values = table[:, sizes.index(size)]
        value = values.mean() if threshold is None else values[THRESHOLDS.index(threshold)]
        return float(value) if value >= 0 else float("nan")

    return AveragePrecision(
        ap=figure(precision),
        ap50=figure(precision, threshold=0.5),
        ap75=figure(precision, threshold=0.75),
        ap_medium=figure(precision, "medium"),
        ap_large=figure(precision, "large"),
        ar=figure(recall),
        ar50=figure(recall, threshold=0.5),
        ar75=figure(recall, threshold=0.75),
        ar_medium=figure(recall, "medium"),
        ar_large=figure(recall, "large"),
        ap_by_threshold=tuple(figure(precision, threshold=threshold) for threshold in THRESHOLDS),
    )


def _ranked(evaluation: COCOeval, num_images: int) -> RankedDetections:
    images = [image for image in evaluation.evalImgs[:num_images] if image is not None]  # those of the size "all"
    if not images:
        return RankedDetections(np.zeros(0), np.zeros(0, bool), 0)
    scores = np.concatenate([image["dtScores"] for image in images])
    correct = np.concatenate([image["dtMatches"][0] > 0 for image in images])
    counted = ~np.concatenate([image["dtIgnore"][0] for image in images]).astype(bool)
    persons = sum(int((image["gtIgnore"] == 0).sum()) for image in images)
    order = np.argsort(-scores, kind="stable")
    order = order[counted[order]]
    return RankedDetections(scores[order], correct[order], persons)
