"""Pictures of the persons on whom two networks differ, side by side."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from posebatch.core.frames import FramePoses
from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.evaluation.joint_moves import FrameMoves
from posebatch.report.drawing import draw_skeletons
from posebatch.report.overlay import Overlay, to_layer
from posebatch.storage.open import open_newest
from posebatch.video.instant import Instant, frame_at

PICTURE_SIDE: Final = 480
"""Longer side of a picture, pixels."""


MOST_ENLARGED: Final = 4.0
"""A small person is not drawn larger than this: it would only be blurred."""


BOX_COLOUR: Final = (255, 255, 255, 200)
"""RGBA of a person's box, which shows who was found even where no joint was."""


MARGIN: Final = 0.25
"""Space around the persons, as a share of the larger side of their boxes."""


@dataclass(frozen=True)
class FramePair:
    """One frame as both networks see it."""

    video: str
    frame_index: int
    time_s: float
    words: str
    """What differs."""
    old: str
    """A ``data:`` address of a JPEG."""
    new: str
    size_wh: tuple[int, int]
    """Width and height of both pictures, pixels."""


def moved_pair(frame: FrameMoves, video: str, kpt_thr: float, endpoint_url: str | None = None) -> FramePair:
    """Draw the person that moves most. ``video``: a path or an ``s3://`` address. Raises the errors of `frame_at`."""
    pair = int(frame.person_moves.argmax())
    old, new = frame.pairs.reference[pair], frame.pairs.matched[pair]
    region = _around(np.array([frame.old.bbox_xyxy[old], frame.new.bbox_xyxy[new]]))
    return _frame_pair(frame, video, move_words(frame), region, (kpt_thr, endpoint_url))


def persons_pair(frame: FrameMoves, video: str, kpt_thr: float, endpoint_url: str | None = None) -> FramePair:
    """Draw the persons that only one network finds. Arguments and errors as for `moved_pair`."""
    region = _around(np.concatenate([frame.old.bbox_xyxy[frame.lost], frame.new.bbox_xyxy[frame.added]]))
    return _frame_pair(frame, video, persons_words(frame), region, (kpt_thr, endpoint_url))


def move_words(frame: FrameMoves) -> str:
    """Which joint of the person that moves most moves how far."""
    person = int(frame.person_moves.argmax())
    shares = frame.pairs.shares[person]
    joint = int(np.nanargmax(shares))
    return (
        f"the joints of one person move {100 * frame.largest_move:.0f} % of its height on average, "
        f"{KEYPOINT_NAMES[joint]} {100 * shares[joint]:.0f} %"
    )


def persons_words(frame: FrameMoves) -> str:
    """How many persons are lost and added."""
    parts = [(len(frame.lost), "lost"), (len(frame.added), "added")]
    said = " and ".join(f"{count} {what}" for count, what in parts if count)
    return f"{said}; {len(frame.pairs.matched)} found by both"


def _frame_pair(
    frame: FrameMoves, video: str, words: str, region: NDArray[np.float64], drawing: tuple[float, str | None]
) -> FramePair:
    record, (kpt_thr, endpoint_url) = frame.old.record, drawing
    with open_newest(video, endpoint_url) as file:
        info, batch = frame_at(file, video, Instant(frame_index=record.frame_index))
    image = np.asarray(batch.images)[0]
    old, new = (_drawn(image, poses, region, kpt_thr) for poses in (frame.old, frame.new))
    time_s = float(record.pts * info.time_base)
    return FramePair(video, record.frame_index, time_s, words, _address(old), _address(new), old.size)


def _around(boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    low, high = boxes[:, :2].min(axis=0).astype(np.float64), boxes[:, 2:].max(axis=0).astype(np.float64)
    margin = MARGIN * (high - low).max()
    return np.concatenate([low - margin, high + margin])


def _drawn(image: NDArray[np.uint8], poses: FramePoses, region: NDArray[np.float64], kpt_thr: float) -> Image.Image:
    height, width = image.shape[:2]
    left, top = (int(value) for value in np.clip(np.floor(region[:2]), 0, (width - 1, height - 1)))
    right, bottom = (int(value) for value in np.clip(np.ceil(region[2:]), (left + 1, top + 1), (width, height)))
    scale = min(MOST_ENLARGED, PICTURE_SIDE / max(right - left, bottom - top))
    size_wh = (max(1, round(scale * (right - left))), max(1, round(scale * (bottom - top))))
    part = Image.fromarray(image[top:bottom, left:right]).resize(size_wh, Image.Resampling.LANCZOS)
    keypoints = poses.keypoints - np.array([left, top, 0], np.float32)
    overlay = Overlay(np.asarray(part))
    for box in to_layer(poses.bbox_xyxy.reshape(-1, 2, 2) - np.array([left, top], np.float32), scale):
        overlay.pen.rectangle([tuple(box[0]), tuple(box[1])], outline=BOX_COLOUR, width=4)
    return Image.fromarray(draw_skeletons(overlay.flattened(), keypoints, kpt_thr, scale))


def _address(picture: Image.Image) -> str:
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
