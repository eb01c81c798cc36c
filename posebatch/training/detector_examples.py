"""Training data of a detector: pictures with marked persons, read from Parquet or from COCO's annotations.

Boxes are x1, y1, x2, y2 in pixels, counted from the picture's edge as inside detectors.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from posebatch.core.errors import InputError
from posebatch.training.pose_examples import check_images

_PERSON_CATEGORY = 1


@dataclass(frozen=True)
class SceneTargets:
    """The persons of one picture."""

    boxes_xyxy: NDArray[np.float64]
    """(n, 4)"""
    ignore: NDArray[np.bool_]
    """(n,) whether the box is a region to ignore: its content is unknown."""

    def __post_init__(self) -> None:
        if self.boxes_xyxy.shape != (len(self.ignore), 4):
            raise ValueError(f"boxes must be ({len(self.ignore)}, 4), got {self.boxes_xyxy.shape}")


@dataclass(frozen=True)
class SceneExamples:
    """Pictures by index. `read_image` reads one on demand."""

    targets: tuple[SceneTargets, ...]
    read_image: Callable[[int], bytes]
    """Returns the encoded picture (JPEG or PNG) of an index."""

    def __len__(self) -> int:
        return len(self.targets)


def join(first: SceneExamples, second: SceneExamples, repeat_first: int) -> SceneExamples:
    """The examples of ``first``, ``repeat_first`` times (at least 1), then those of ``second`` once."""
    split = repeat_first * len(first)

    def read_image(index: int) -> bytes:
        return first.read_image(index % len(first)) if index < split else second.read_image(index - split)

    return SceneExamples(first.targets * repeat_first + second.targets, read_image)


def read_scenes(path: Path, images: Path | None = None) -> SceneExamples:
    """Read pictures from Parquet, or from a COCO annotation file and its folder of ``images``.

    Raises `InputError` if the file cannot be read, lacks a column, or marks no person.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a .parquet file of pictures or a COCO annotation .json")
    in_parquet = path.suffix.lower() == ".parquet"
    if not in_parquet and images is None:
        raise InputError(f"{path}: COCO annotations name image files; say in which folder they are with --images")
    try:
        scenes = _read_parquet(path) if in_parquet or images is None else _read_coco(path, images)
    except (OSError, ValueError, KeyError, TypeError) as error:
        wanted = "Parquet with image and boxes of each picture" if in_parquet else "COCO's annotations"
        raise InputError(f"{path}: cannot be read as {wanted} ({type(error).__name__}: {error})") from error
    if not any((~scene.ignore).any() for scene in scenes.targets):
        raise InputError(f"{path}: no person is marked in it")
    return scenes


def read_person_crops(path: Path, sources: tuple[str, ...] = ()) -> SceneExamples:
    """Read person crops (a file of `read_pose_examples`) as pictures with one marked person each.

    The rest of such a picture is unlabelled, so all of it is a region to ignore. ``sources`` selects by the column
    ``source``; empty selects all. Raises `InputError` if the file cannot be read, lacks a column, or holds no such
    person.
    """
    try:
        crops = _read_crops(path, sources)
    except (OSError, ValueError, KeyError, TypeError) as error:
        wanted = "Parquet with image, width, height, bbox" + (" and source" if sources else "") + " of each person"
        raise InputError(f"{path}: cannot be read as {wanted} ({type(error).__name__}: {error})") from error
    if not len(crops):
        raise InputError(f"{path}: no person in it" + (f" whose source is {' or '.join(sources)}" if sources else ""))
    return crops


def _read_crops(path: Path, sources: tuple[str, ...]) -> SceneExamples:
    table = pq.read_table(path)
    if sources:
        table = table.filter(np.isin(np.asarray(table["source"].to_pylist()), sources))
    boxes = _xyxy(table["bbox"].to_pylist())
    sizes = np.stack([table["width"].to_numpy(), table["height"].to_numpy()], axis=1).astype(np.float64)
    targets = tuple(
        SceneTargets(np.stack([box, [0, 0, *size]]), np.array([False, True]))
        for box, size in zip(boxes, sizes, strict=True)
    )
    encoded = table["image"]
    return SceneExamples(targets, lambda index: encoded[index].as_py())


def _read_parquet(path: Path) -> SceneExamples:
    """Columns: image (encoded), boxes (x, y, w, h per person, flat); optional: ignore, iscrowd (bool per person)."""
    table = pq.read_table(path)
    boxes = [_xyxy(row) for row in table["boxes"].to_pylist()]
    ignored = [np.zeros(len(row), bool) for row in boxes]
    for column in {"ignore", "iscrowd"} & set(table.column_names):
        rows = table[column].to_pylist()
        ignored = [ignore | np.asarray(row, bool) for ignore, row in zip(ignored, rows, strict=True)]
    targets = tuple(SceneTargets(box, ignore) for box, ignore in zip(boxes, ignored, strict=True))
    encoded = table["image"]
    return SceneExamples(targets, lambda index: encoded[index].as_py())


def _read_coco(path: Path, images: Path) -> SceneExamples:
    content = json.loads(path.read_text())
    persons: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        if annotation["category_id"] == _PERSON_CATEGORY:
            persons[annotation["image_id"]].append(annotation)
    targets = tuple(
        SceneTargets(
            _xyxy([person["bbox"] for person in marked]), np.array([bool(p.get("iscrowd")) for p in marked], bool)
        )
        for marked in persons.values()
    )
    paths = [images / image["file_name"] for image in content["images"]]
    check_images(paths)
    return SceneExamples(targets, lambda index: paths[index].read_bytes())


def _xyxy(boxes_xywh: Any) -> NDArray[np.float64]:
    boxes = np.asarray(boxes_xywh, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
