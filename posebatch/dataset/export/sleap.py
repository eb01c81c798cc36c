"""SLEAP's predictions (.slp), written by sleap-io: one file a video."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from posebatch.core.skeleton import FLIP_PAIRS, KEYPOINT_NAMES, SKELETON_EDGES
from posebatch.dataset.export.files import ExportedFile, bytes_written
from posebatch.dataset.export.video_motion import VideoMotion, has_joint, joints_of


def sleap_files(motion: VideoMotion) -> Iterator[ExportedFile]:
    """One file: an instance for each row in which a joint is known, at the frame of the video that it belongs to."""
    from sleap_io import save_slp  # noqa: PLC0415 - an optional extra

    def write(path: str) -> None:
        save_slp(labels_of(motion), path, embed=False, verbose=False)

    yield ExportedFile(".slp", bytes_written(write, ".slp"))


def labels_of(motion: VideoMotion) -> Any:
    """The ``sleap_io.Labels`` of a video. They refer to it by its path in the archive and do not open it."""
    from sleap_io import LabeledFrame, Labels, PredictedInstance, Skeleton, Track, Video  # noqa: PLC0415

    skeleton = Skeleton(list(KEYPOINT_NAMES), name="coco17")
    for first, second in SKELETON_EDGES:
        skeleton.add_edge(KEYPOINT_NAMES[first], KEYPOINT_NAMES[second])
    for left, right in FLIP_PAIRS:
        skeleton.add_symmetry(KEYPOINT_NAMES[left], KEYPOINT_NAMES[right])
    frames = int(motion.frames.frame_index.max()) + 1
    shape = (frames, motion.height, motion.width, 3)
    video = Video(motion.video, backend_metadata={"shape": shape, "filename": motion.video}, open_backend=False)
    tracks = {track_id: Track(f"track{track_id}") for track_id in motion.track_ids}
    joints = joints_of(motion.rows)
    xy = joints[:, :, :2].astype(np.float64)
    point_scores = np.nan_to_num(joints[:, :, 2].astype(np.float64))
    scores = motion.rows.pose_score.fillna(0).tolist()
    known = has_joint(joints)
    instances: dict[int, list[Any]] = {}
    for place, (frame_index, track_id) in enumerate(
        zip(motion.rows.frame_index.tolist(), motion.rows.track_id.tolist(), strict=True)
    ):
        if known[place]:
            instance = PredictedInstance.from_numpy(
                xy[place], skeleton, point_scores[place], score=scores[place], track=tracks[track_id]
            )
            instances.setdefault(frame_index, []).append(instance)
    labeled = [LabeledFrame(video=video, frame_idx=index, instances=found) for index, found in instances.items()]
    return Labels(labeled_frames=labeled, videos=[video], skeletons=[skeleton], tracks=list(tracks.values()))
