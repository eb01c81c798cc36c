"""Labelled images, and poses in them."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from posebatch.core.frames import Detections, FramePoses, FrameRecord
from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.evaluation.labels import LabelledDataset, LabelledImage, LabelledPersons

SIZE = 400


def standing(x=100.0, y=100.0, height=100.0):
    """A person's joints (17, 3), all visible, facing us; x, y is the box's upper left corner."""
    rows = [5, 3, 3, 5, 5, 20, 20, 38, 38, 52, 52, 55, 55, 75, 75, 97, 97]
    columns = [25, 28, 22, 32, 18, 38, 12, 42, 8, 45, 5, 34, 16, 34, 16, 34, 16]
    points = np.stack([columns, rows, np.full(NUM_KEYPOINTS, 200)], axis=1) / 100.0
    return np.array([x, y, 0]) + points * [height, height, 1]


def box_of(x=100.0, y=100.0, height=100.0):
    return [x, y, x + height / 2, y + height]


def persons(boxes=(), keypoints=(), area=None, ignored=None):
    n = len(boxes)
    boxes = np.array(boxes, np.float64).reshape(n, 4)
    return LabelledPersons(
        boxes,
        np.array(keypoints, np.float64).reshape(n, NUM_KEYPOINTS, 3),
        (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) if area is None else np.array(area, np.float64),
        np.zeros(n, bool) if ignored is None else np.array(ignored, bool),
    )


def dataset(*images):
    return LabelledDataset(
        "made",
        tuple(LabelledImage(f"{i}.png", 10 + i, SIZE, SIZE, b"", labels) for i, labels in enumerate(images)),
        has_keypoints=True,
    )


def frame_poses(boxes=(), scores=(), keypoints=None):
    """The estimator's result for one image."""
    n = len(boxes)
    keypoints = np.zeros((n, NUM_KEYPOINTS, 3)) if keypoints is None else keypoints
    scores = np.array(scores, np.float32)
    return FramePoses(
        FrameRecord(0, 0, True, "ok"),
        np.array(boxes, np.float32).reshape(n, 4),
        scores,
        scores,
        np.array(keypoints, np.float32).reshape(n, NUM_KEYPOINTS, 3),
    )


def detections(boxes=(), scores=()):
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32))


def encoded(pixels, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_coco(folder, images):
    """Write (pixels, boxes xywh, keypoints (n, 17, 3)) as COCO's JSON with its images; returns the JSON's path."""
    body = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    for number, (pixels, boxes, keypoints) in enumerate(images):
        name = f"{number:012}.png"
        (folder / name).write_bytes(encoded(pixels))
        body["images"].append({"id": number, "file_name": name, "width": pixels.shape[1], "height": pixels.shape[0]})
        for box, joints in zip(boxes, keypoints, strict=True):
            body["annotations"].append(
                {
                    "id": len(body["annotations"]) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [float(value) for value in box],
                    "area": float(0.5 * box[2] * box[3]),
                    "iscrowd": 0,
                    "keypoints": np.asarray(joints, float).ravel().tolist(),
                    "num_keypoints": int((np.asarray(joints)[:, 2] > 0).sum()),
                }
            )
    path = folder / "labels.json"
    path.write_text(json.dumps(body))
    return path


def write_parquet(path, rows):
    """Write rows of plain values."""
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path
