"""Drawn persons and pictures with labels, in the file formats of the trainings."""

import functools
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.demo.walker import Outfit, walk_cycle
from posebatch.training.detector_augmentation import SceneAugmentation
from posebatch.training.pose_examples import PoseTargets

CENTRE_TO_EDGE = 0.5
NO_SCENE_AUGMENTATION = SceneAugmentation(mosaic=0, crop=0, least_crop=1, zoom_out=0, flip=0, colour=0)


def encoded(pixels, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def targets(keypoints=None, box=(0, 0, 99, 99), weights=None, present=None):
    points = np.full((NUM_KEYPOINTS, 2), 50.0) if keypoints is None else np.array(keypoints, float)
    weights = np.ones(NUM_KEYPOINTS) if weights is None else np.array(weights, float)
    present = np.ones(NUM_KEYPOINTS, bool) if present is None else np.array(present, bool)
    return PoseTargets(np.array(box, float), points, weights, present)


@functools.cache
def drawn_persons(count=4, scale=0.4):
    """Pictures of a walking figure: pixels, box x, y, w, h from the edge, keypoints (17, 3) at pixel centres."""
    sprites = walk_cycle(Outfit(shirt=(176, 52, 46), trousers=(58, 78, 120), hair=(62, 42, 28)), 0.4, count)
    random = np.random.default_rng(3)
    return [_drawn(sprite, scale, random) for sprite in sprites]


def _drawn(sprite, scale, random):
    width, height = (round(side * scale) for side in sprite.image.size)
    grey = random.normal(140, 12, (height, width, 3)).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(grey)
    small = sprite.image.resize((width, height), Image.Resampling.BILINEAR)
    picture.paste(small, (0, 0), small)
    factor = np.array([width, height]) / sprite.image.size
    corners = (sprite.box_xyxy.reshape(2, 2) + CENTRE_TO_EDGE) * factor
    points = (sprite.joints + CENTRE_TO_EDGE) * factor - CENTRE_TO_EDGE
    keypoints = np.concatenate([points, 2.0 * sprite.visible[:, None]], axis=1)
    keypoints[~sprite.visible] = 0
    return np.asarray(picture), [*corners[0], *(corners[1] - corners[0])], keypoints


def write_persons(path, count=4, **columns):
    """Write drawn persons as Parquet with one row per person."""
    rows = [
        {
            "image": encoded(pixels),
            "width": pixels.shape[1],
            "height": pixels.shape[0],
            "bbox": box,
            "keypoints": keypoints.ravel().tolist(),
            "source": "drawn",
        }
        for pixels, box, keypoints in drawn_persons(count)
    ]
    pq.write_table(pa.Table.from_pylist([{**row, **columns} for row in rows]), path)
    return path


def write_scenes(path, count=4):
    """Write drawn persons as pictures with marked persons, after a picture without a person."""
    empty = {"image": encoded(np.full((80, 60, 3), 140, np.uint8)), "width": 60, "height": 80, "boxes": []}
    rows = [
        {"image": encoded(pixels), "width": pixels.shape[1], "height": pixels.shape[0], "boxes": box}
        for pixels, box, _ in drawn_persons(count)
    ]
    pq.write_table(pa.Table.from_pylist([empty, *rows]), path)
    return path


def write_coco(folder, count=4):
    """Write drawn persons as COCO's annotations; returns the JSON and the folder of its images."""
    images = folder / "images"
    images.mkdir()
    body = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    for number, (pixels, box, keypoints) in enumerate(drawn_persons(count)):
        (images / f"{number}.png").write_bytes(encoded(pixels))
        size = {"width": pixels.shape[1], "height": pixels.shape[0]}
        body["images"].append({"id": number, "file_name": f"{number}.png", **size})
        labels = {"bbox": [float(value) for value in box], "keypoints": keypoints.ravel().tolist(), "iscrowd": 0}
        body["annotations"].append({"id": number, "image_id": number, "category_id": 1, "area": 1.0, **labels})
    path = folder / "labels.json"
    path.write_text(json.dumps(body))
    return path, images
