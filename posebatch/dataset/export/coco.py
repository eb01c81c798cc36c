"""COCO's results of keypoints, as pycocotools reads them: one pair of files a video."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from posebatch.core.skeleton import KEYPOINT_NAMES, SKELETON_EDGES
from posebatch.dataset.export.files import ExportedFile
from posebatch.dataset.export.video_motion import VideoMotion, has_joint, joints_of

PERSON_CATEGORY: Final = 1


def coco_files(motion: VideoMotion) -> Iterator[ExportedFile]:
    """The results, and the images and the category that they refer to. The id of an image is its frame_index."""
    yield ExportedFile(".coco-results.json", _json(results(motion)))
    yield ExportedFile(".coco-images.json", _json(images(motion)))


def results(motion: VideoMotion) -> list[dict[str, Any]]:
    """One result for each row in which a joint is known; joints that are not known are 0, 0, 0.

    ``score`` is the pose score of the network; where joints are interpolated over a gap, it is 0.
    """
    joints = joints_of(motion.rows)
    known = has_joint(joints)
    joints = np.where(np.isnan(joints).any(axis=2, keepdims=True), 0, joints).astype(np.float64)
    scores = motion.rows.pose_score.fillna(0).to_numpy(np.float64)
    ids = zip(motion.rows.frame_index.tolist(), motion.rows.track_id.tolist(), scores.tolist(), strict=True)
    return [
        {
            "image_id": frame_index,
            "category_id": PERSON_CATEGORY,
            "keypoints": points.ravel().tolist(),
            "score": score,
            "track_id": track_id,
        }
        for (frame_index, track_id, score), points, is_known in zip(ids, joints, known, strict=True)
        if is_known
    ]


def images(motion: VideoMotion) -> dict[str, Any]:
    """The processed frames and the category, in the form of COCO's annotation files, without annotations."""
    frames = zip(motion.frames.frame_index.tolist(), motion.frames.time_s.tolist(), strict=True)
    return {
        "info": {"description": motion.video},
        "images": [
            {
                "id": frame_index,
                "file_name": f"{frame_index:08d}.jpg",
                "width": motion.width,
                "height": motion.height,
                "frame_index": frame_index,
                "time_s": time_s,
            }
            for frame_index, time_s in frames
        ],
        "annotations": [],
        "categories": [
            {
                "id": PERSON_CATEGORY,
                "name": "person",
                "supercategory": "person",
                "keypoints": list(KEYPOINT_NAMES),
                "skeleton": [[first + 1, second + 1] for first, second in SKELETON_EDGES],
            }
        ],
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode()
