"""The tracks of an output, scored against true identities: a line for each clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.errors import InputError
from posebatch.core.motion_settings import MotionSettings
from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.core.text_table import text_table
from posebatch.dataset.tables.readers import read_frames, read_poses, read_videos
from posebatch.evaluation.identity_score import (
    Identities,
    TrackedBoxes,
    read_identities,
    score_tracks,
    true_tracks,
)
from posebatch.evaluation.other_trackers import OTHER_TRACKERS, track_with
from posebatch.evaluation.true_boxes import noisy_boxes
from posebatch.motion.blocks import FrameBlock
from posebatch.motion.tracking.linking import link

STORED: Final = "stored"
"""Instead of a linker: the tracks that the output has."""


COLUMNS: Final = ["clip", "IDF1", "best", "share", "switches", "fragmentations", "found", "boxes", "no track"]


@dataclass(frozen=True)
class TrackQuestion:
    """Which tracks to score."""

    output: str
    linker: str = STORED
    """`STORED`, or a linker or one of `OTHER_TRACKERS` that links the stored poses anew."""
    max_gap_seconds: float = MotionSettings.max_gap_seconds
    kpt_thr: float = 0.2
    true_boxes: bool = False
    """Give the linker true boxes with errors instead of the stored poses."""
    seed: int = 0


def evaluate_clips(truths: list[Path], question: TrackQuestion) -> str:
    """A table with a line for each truth file, whose name without ``.csv`` names the video. Raises `InputError`."""
    return text_table(COLUMNS, [_evaluate_clip(path, question) for path in truths])


def _evaluate_clip(path: Path, question: TrackQuestion) -> list[str]:
    truth = read_identities(path)
    block, stored, size_wh = _read_clip(question.output, path.stem)
    if question.true_boxes:
        block = _with_true_boxes(block, truth, question.seed)
    if question.linker == STORED:
        track = stored
    elif question.linker in OTHER_TRACKERS:
        track = track_with(question.linker, block)
    else:
        settings = MotionSettings(linker=question.linker, max_gap_seconds=question.max_gap_seconds)
        track = link([block], settings, size_wh, question.kpt_thr).track_ids.astype(np.int64)
    boxes = TrackedBoxes(block.frame_index[block.frame], block.bbox_xyxy.astype(np.float64), track)
    score, best = score_tracks(truth, boxes), score_tracks(truth, true_tracks(truth, boxes))
    return [
        path.stem,
        f"{score.idf1:.3f}",
        f"{best.idf1:.3f}",
        f"{score.idf1 / best.idf1:.3f}" if best.idf1 else "-",
        str(score.switches),
        str(score.fragmentations),
        f"{score.found:.3f}",
        str(len(track)),
        str(int((track < 0).sum())),
    ]


def _read_clip(output: str, name: str) -> tuple[FrameBlock, NDArray[np.int64], tuple[int, int]]:
    """Frames and persons of the video whose path ends in ``name``, its stored tracks (n,), and its size."""
    match = f"*{name}*"
    video = read_videos(output, match, ["video", "width", "height"])
    if len(video) != 1:
        raise InputError(f"{output}: {len(video)} videos match {match!r}")
    frames = read_frames(output, match).sort_values("frame_index")
    poses = read_poses(output, match).sort_values(["frame_index", "person"])
    order = frames["frame_index"].to_numpy(np.int64)
    joints = [f"{joint}_{value}" for joint in KEYPOINT_NAMES for value in ("x", "y", "score")]
    edges = [f"bbox_{edge}" for edge in ("x1", "y1", "x2", "y2")]
    block = FrameBlock(
        frame_index=order,
        pts=frames["pts"].to_numpy(np.int64),
        time_s=frames["time_s"].to_numpy(np.float64),
        frame=np.searchsorted(order, poses["frame_index"].to_numpy(np.int64)).astype(np.int64),
        person=poses["person"].to_numpy(np.int32),
        bbox_xyxy=poses[edges].to_numpy(np.float32),
        bbox_scores=poses["bbox_score"].to_numpy(np.float32),
        pose_scores=poses["pose_score"].to_numpy(np.float32),
        keypoints=poses[joints].to_numpy(np.float32).reshape(len(poses), len(KEYPOINT_NAMES), 3),
    )
    stored = poses["track_id"].fillna(-1).to_numpy(np.int64)
    return block, stored, (int(video["width"].iloc[0]), int(video["height"].iloc[0]))


def _with_true_boxes(block: FrameBlock, truth: Identities, seed: int) -> FrameBlock:
    """The frames that are labelled, and their true boxes with errors."""
    frames = np.isin(block.frame_index, truth.frames)
    return noisy_boxes(truth, block.frame_index[frames], block.pts[frames], block.time_s[frames], seed)
