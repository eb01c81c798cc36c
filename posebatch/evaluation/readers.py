"""Labels and detections from files: COCO's JSON with a folder of images, or Parquet with images and labels."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from posebatch.core.errors import InputError
from posebatch.core.frames import Detections
from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.evaluation.labels import LabelledDataset, LabelledImage, LabelledPersons, xywh_to_xyxy

_PARQUET_COLUMNS: Final = ("image", "width", "height", "boxes")


_OPTIONAL_COLUMNS: Final = ("keypoints", "area", "iscrowd", "ignore", "image_id", "file_name")


def read_dataset(data: Path, images: Path | None = None) -> LabelledDataset:
    """Read labels from COCO's JSON, whose images are in the folder ``images``, or from Parquet, which holds them.

    Parquet has one row per image: ``image`` (encoded), ``width``, ``height``, ``boxes`` (flat, 4 per person: COCO's x,
    y, width, height). Optional: ``keypoints`` (flat, 51 per person), ``area``, ``iscrowd``, ``ignore``, ``image_id``,
    ``file_name``. Raises `InputError` if the file cannot be read, has another format, or lacks images.
    """
    if data.suffix.lower() == ".parquet":
        return _read_parquet(data)
    if images is None:
        raise InputError(f"{data}: labels in COCO's JSON need --images FOLDER")
    return _read_coco(data, images)


def read_detections(path: Path, dataset: LabelledDataset) -> list[Detections]:
    """Read detections in COCO's result format: one entry per image of the dataset, boxes by descending score.

    Images that are not in the dataset are skipped. Raises `InputError` if the file cannot be read, has another format,
    or holds only other images.
    """
    boxes: dict[Any, list[list[float]]] = defaultdict(list)
    entries = _read_json(path)
    try:
        if not isinstance(entries, list):
            raise TypeError(f"a {type(entries).__name__}")
        for entry in entries:
            if entry["category_id"] == 1:
                boxes[entry["image_id"]].append([*map(float, entry["bbox"]), float(entry["score"])])
        ranked = [_ranked(boxes.get(image.image_id, [])) for image in dataset.images]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f'{path}: not COCO\'s result format, a list of {{"image_id", "category_id", "bbox", "score"}}: {error!r}'
        ) from error
    if boxes and not boxes.keys() & {image.image_id for image in dataset.images}:
        raise InputError(f"{path}: none of its {len(boxes)} images is in {dataset.name}; it is for other images")
    return ranked


def _ranked(rows: list[list[float]]) -> Detections:
    table = np.array(rows, np.float64).reshape(-1, 5)
    table = table[np.argsort(-table[:, 4], kind="stable")]
    return Detections(xywh_to_xyxy(table[:, :4]).astype(np.float32), table[:, 4].astype(np.float32))


def _read_coco(path: Path, folder: Path) -> LabelledDataset:
    body = _read_json(path)
    try:
        person = next(entry["id"] for entry in body["categories"] if entry["name"] == "person")
        annotations: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
        for annotation in body["annotations"]:
            if annotation["category_id"] == person:
                annotations[annotation["image_id"]].append(annotation)
        images = tuple(_coco_image(entry, annotations[entry["id"]], folder) for entry in body["images"])
        has_keypoints = any("keypoints" in annotation for annotation in body["annotations"])
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        raise InputError(
            f"{path}: not COCO's annotation format with images, annotations and a category person: {error!r}"
        ) from error
    missing = [image.name for image in images if not (folder / image.name).is_file()]
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} of {len(images)} images of {path} are not there, the first is {missing[0]}"
        )
    return LabelledDataset(path.name, images, has_keypoints)


def _coco_image(entry: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]], folder: Path) -> LabelledImage:
    boxes = _rows([annotation["bbox"] for annotation in annotations], 4)
    nothing = [0] * 3 * NUM_KEYPOINTS
    keypoints = _rows([annotation.get("keypoints", nothing) for annotation in annotations], 3 * NUM_KEYPOINTS)
    persons = LabelledPersons.from_coco(
        boxes,
        keypoints.reshape(-1, NUM_KEYPOINTS, 3),
        np.array([annotation.get("area", np.nan) for annotation in annotations], np.float64),
        np.array([annotation.get("iscrowd", 0) for annotation in annotations], bool),
    )
    name = str(entry["file_name"])
    return LabelledImage(name, int(entry["id"]), int(entry["width"]), int(entry["height"]), folder / name, persons)


def _read_parquet(path: Path) -> LabelledDataset:
    try:
        file = pq.ParquetFile(path)
        known = file.schema_arrow.names
        absent = [name for name in _PARQUET_COLUMNS if name not in known]
        if absent:
            raise InputError(f"{path}: has no column {', '.join(absent)}; it has {', '.join(known)}")
        rows = file.read([*_PARQUET_COLUMNS, *(name for name in _OPTIONAL_COLUMNS if name in known)]).to_pylist()
        images = tuple(_parquet_image(number, row) for number, row in enumerate(rows))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {error}") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: its columns do not fit each other: {error}") from error
    return LabelledDataset(path.name, images, "keypoints" in known)


def _parquet_image(number: int, row: Mapping[str, Any]) -> LabelledImage:
    boxes = _rows(row["boxes"], 4)
    ignored = np.zeros(len(boxes), bool)
    for name in ("iscrowd", "ignore"):
        if row.get(name) is not None:
            ignored |= np.array(row[name], bool)
    keypoints = row.get("keypoints")
    area = row.get("area")
    persons = LabelledPersons.from_coco(
        boxes,
        None if keypoints is None else _rows(keypoints, 3 * NUM_KEYPOINTS).reshape(-1, NUM_KEYPOINTS, 3),
        None if area is None else np.array(area, np.float64),
        ignored,
    )
    name, image_id = row.get("file_name") or f"row {number}", row.get("image_id")
    return LabelledImage(
        name, number if image_id is None else image_id, row["width"], row["height"], row["image"], persons
    )


def _rows(values: Sequence[Any], width: int) -> NDArray[np.float64]:
    """(n, width) from rows or from flat numbers. Raises ``ValueError`` for another length."""
    table = np.array(values, np.float64)
    if table.ndim == 2 and table.shape[1] != width:
        raise ValueError(f"rows of {table.shape[1]} numbers where {width} are wanted")
    return table.reshape(-1, width)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
