"""Training data of a pose network: labelled persons, read from Parquet or from COCO's annotations.

Coordinates are pixels; an integer is a pixel's centre, as in `posebatch.evaluation.labels`. COCO's boxes count from a
pixel's edge, so half a pixel is subtracted. COCO's keypoints name pixels and stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from posebatch.core.errors import InputError
from posebatch.core.skeleton import NUM_KEYPOINTS

_HALF_PIXEL = 0.5


_LABEL_COLUMNS: Final = ("keypoints", "teacher_keypoints")


TEACHER_SEES: Final = 0.2
"""Score from which a teacher's keypoint is used."""


ABSENT_WEIGHT: Final = 0.15
"""Weight of a joint with neither a label nor a teacher's keypoint: its heatmap should be empty."""


AGREEMENT: Final = 0.06
"""Distance below which label and teacher agree, as a share of the box's diagonal. Their mean is taken then, because
both err by a few pixels."""


@dataclass(frozen=True)
class PoseTargets:
    """The joints of one person and their weights in the loss."""

    bbox_xyxy: NDArray[np.float64]
    """(4,) pixels of the image."""
    keypoints: NDArray[np.float64]
    """(17, 2) pixels of the image."""
    weights: NDArray[np.float64]
    """(17,) weight of each joint in the loss; 0 for an unknown joint."""
    present: NDArray[np.bool_]
    """(17,) False if the right heatmap is empty."""

    def __post_init__(self) -> None:
        expected = {"bbox_xyxy": (4,), "keypoints": (NUM_KEYPOINTS, 2)}
        expected |= {"weights": (NUM_KEYPOINTS,), "present": (NUM_KEYPOINTS,)}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must be {shape}, got {getattr(self, name).shape}")
        if not (self.bbox_xyxy[2:] > self.bbox_xyxy[:2]).all():
            raise ValueError(f"bbox_xyxy must have an area, got {self.bbox_xyxy}")


@dataclass(frozen=True)
class PoseExamples:
    """Persons by index. `read_image` reads an image on demand."""

    targets: tuple[PoseTargets, ...]
    read_image: Callable[[int], bytes]
    """Returns the encoded image (JPEG or PNG) of the person of an index."""

    def __len__(self) -> int:
        return len(self.targets)


def blend_labels(
    bbox_xyxy: NDArray[np.float64], labels: NDArray[np.float64], teacher: NDArray[np.float64] | None = None
) -> PoseTargets:
    """Targets from labels (17, 3) x, y, visibility, and optionally a teacher's keypoints (17, 3) x, y, score.

    A labelled joint has weight 1; its position is the mean of label and teacher if they agree. A joint that only the
    teacher sees has the teacher's score as its weight. A joint that neither sees has an empty heatmap and
    `ABSENT_WEIGHT`; without a teacher its weight is 0, because most unlabelled joints of COCO are only hidden.
    """
    labelled = labels[:, 2] > 0
    points, weights, present = labels[:, :2].copy(), labelled.astype(np.float64), labelled.copy()
    if teacher is not None:
        score = np.clip(teacher[:, 2], 0, 1)
        seen = score >= TEACHER_SEES
        reach = AGREEMENT * np.hypot(*(bbox_xyxy[2:] - bbox_xyxy[:2]))
        agree = labelled & seen & (np.linalg.norm(labels[:, :2] - teacher[:, :2], axis=1) < reach)
        points[agree] = (points[agree] + teacher[agree, :2]) / 2
        only_teacher = ~labelled & seen
        points[only_teacher], weights[only_teacher] = teacher[only_teacher, :2], score[only_teacher]
        weights[~labelled & ~seen] = ABSENT_WEIGHT
        present = labelled | only_teacher
    return PoseTargets(bbox_xyxy, points, weights, present)


def read_pose_examples(
    path: Path,
    images: Path | None = None,
    repeats: Mapping[str, int] = MappingProxyType({}),
    labels: Path | None = None,
) -> PoseExamples:
    """Read labelled persons from Parquet, or from a COCO keypoint annotation file and its folder of ``images``.

    ``labels`` is a second Parquet file with the same persons in the same order, checked by the column ``id``. Its
    ``keypoints`` and ``teacher_keypoints`` replace those of ``path``. ``repeats`` maps values of the column ``source``
    to the number of times that their persons come in each round; other persons come once.

    Raises `InputError` if a file cannot be read, lacks a column, or holds no labelled person, and if the two files
    hold different persons.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a .parquet file of persons or a COCO keypoint annotation .json")
    in_parquet = path.suffix.lower() == ".parquet"
    if labels is not None and not in_parquet:
        raise InputError(f"{path}: labels in a second file belong to persons in Parquet; leave out --labels {labels}")
    if not in_parquet and images is None:
        raise InputError(f"{path}: COCO annotations name image files; say in which folder they are with --images")
    try:
        examples = _read_parquet(path, labels, repeats) if in_parquet or images is None else _read_coco(path, images)
    except (OSError, ValueError, KeyError, TypeError) as error:
        wanted = (
            "Parquet with image, bbox and keypoints of each person" if in_parquet else "COCO's keypoint annotations"
        )
        raise InputError(f"{path}: cannot be read as {wanted} ({type(error).__name__}: {error})") from error
    if not any(target.weights.any() for target in examples.targets):
        raise InputError(f"{path}: no person with a labelled keypoint in it")
    return examples


def _read_parquet(path: Path, labels_path: Path | None, repeats: Mapping[str, int]) -> PoseExamples:
    """Columns: image (encoded), bbox (x, y, w, h), keypoints (17 x (x, y, v)); optional: teacher_keypoints, source."""
    table = pq.read_table(path)
    if labels_path is not None:
        table = _with_labels(table, path, labels_path)
    if repeats:
        sources = table["source"].to_pylist()
        if unknown := repeats.keys() - set(sources):
            raise ValueError(f"no person in it has the source {', '.join(sorted(unknown))}")
        table = table.take(np.repeat(np.arange(len(sources)), [repeats.get(source, 1) for source in sources]))
    boxes = _matrix(table, "bbox", 4)
    labels = _matrix(table, "keypoints", 3 * NUM_KEYPOINTS).reshape(-1, NUM_KEYPOINTS, 3)
    has_teacher = "teacher_keypoints" in table.column_names
    column = "teacher_keypoints" if has_teacher else "keypoints"
    teachers = _matrix(table, column, 3 * NUM_KEYPOINTS).reshape(-1, NUM_KEYPOINTS, 3)
    targets = tuple(
        blend_labels(_xyxy(box), label, teacher if has_teacher else None)
        for box, label, teacher in zip(boxes, labels, teachers, strict=True)
    )
    encoded = table["image"]
    return PoseExamples(targets, lambda index: encoded[index].as_py())


def _with_labels(table: pa.Table, path: Path, labels_path: Path) -> pa.Table:
    """The persons of ``table`` with the keypoints of a second file, row for row."""
    try:
        labels = pq.read_table(labels_path)
        if not labels["id"].equals(table["id"]):
            raise InputError(f"{labels_path}: its column id does not name the persons of {path} in their order")
        for name in _LABEL_COLUMNS:
            new = labels[name]
            table = table.drop_columns([name] if name in table.column_names else []).append_column(name, new)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{labels_path}: cannot be read as Parquet with id, {' and '.join(_LABEL_COLUMNS)} of each person ({error})"
        ) from error
    return table


def _matrix(table: Any, column: str, width: int) -> NDArray[np.float64]:
    rows = table[column].to_pylist()
    return np.asarray(rows, np.float64).reshape(len(rows), width)


def _read_coco(path: Path, images: Path) -> PoseExamples:
    content = json.loads(path.read_text())
    files = {image["id"]: images / image["file_name"] for image in content["images"]}
    persons = [annotation for annotation in content["annotations"] if _is_usable(annotation)]
    targets = tuple(
        blend_labels(
            _xyxy(np.asarray(person["bbox"], np.float64)),
            np.asarray(person["keypoints"], np.float64).reshape(NUM_KEYPOINTS, 3),
        )
        for person in persons
    )
    paths = [files[person["image_id"]] for person in persons]
    check_images(paths)
    return PoseExamples(targets, lambda index: paths[index].read_bytes())


def check_images(paths: Sequence[Path]) -> None:
    """Raise ``FileNotFoundError`` if image files are missing: before the training, not hours into it."""
    missing = [path for path in dict.fromkeys(paths) if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"{len(missing)} of its images are not there, the first is {missing[0]}")


def _is_usable(annotation: Mapping[str, Any]) -> bool:
    """Whether the annotation is a single person with a labelled joint and a box of some area."""
    labelled = any(annotation.get("keypoints", ())[2::3])
    return not annotation.get("iscrowd") and labelled and min(annotation["bbox"][2:]) > 0


def _xyxy(box_xywh: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, width, height = box_xywh
    return np.array([x, y, x + width, y + height]) - _HALF_PIXEL
