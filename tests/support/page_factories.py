"""Made-up movement for the tests of pages: walkers whose knees swing, at known angles."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from posebatch.core.records import PublishedObject, StageSeconds, VideoRecord
from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.core.videos import VideoInfo
from posebatch.dataset.tables.page_data import FrameLine, MovementRows
from posebatch.motion.movement.motion_block import ANGLE_NAMES
from posebatch.report.pages.player_data import player_data
from posebatch.report.pages.run_facts import RunFacts, VideoLine
from posebatch.report.pages.video_page import VideoMaterial

SIZE = (1280, 720)

SHAPE = {
    "nose": (0.0, -0.95),
    "left_eye": (0.03, -0.98),
    "right_eye": (-0.03, -0.98),
    "left_ear": (0.06, -0.96),
    "right_ear": (-0.06, -0.96),
    "left_shoulder": (0.12, -0.8),
    "right_shoulder": (-0.12, -0.8),
    "left_elbow": (0.17, -0.62),
    "right_elbow": (-0.17, -0.62),
    "left_wrist": (0.19, -0.46),
    "right_wrist": (-0.19, -0.46),
    "left_hip": (0.08, -0.5),
    "right_hip": (-0.08, -0.5),
}
"""Joints of a standing person 1 high, whose feet are at 0."""


def knee_degrees(time_s):
    """The true angle of both knees."""
    return 35 + 30 * np.sin(2 * np.pi * time_s)


def walker(time_s, x=300.0, height=420.0):
    """Joints (n, 17, 3) of a person whose shanks swing."""
    joints = np.full((len(time_s), 17, 3), 0.9, np.float32)
    centre = x + 40 * np.sin(0.3 * time_s)
    swing = np.deg2rad(knee_degrees(time_s))
    for number, name in enumerate(KEYPOINT_NAMES):
        if name in SHAPE:
            joints[:, number, 0] = centre + SHAPE[name][0] * height
            joints[:, number, 1] = 600 + SHAPE[name][1] * height
    for side, sign in (("left", 1), ("right", -1)):
        knee, ankle = (KEYPOINT_NAMES.index(f"{side}_{part}") for part in ("knee", "ankle"))
        joints[:, knee, 0] = centre + sign * 0.08 * height
        joints[:, knee, 1] = 600 - 0.26 * height
        joints[:, ankle, 0] = joints[:, knee, 0] + 0.26 * height * np.sin(swing)
        joints[:, ankle, 1] = joints[:, knee, 1] + 0.26 * height * np.cos(swing)
    return joints


def frame_line(frames=250, fps=25.0, stride=1, persons=1):
    index = np.arange(frames, dtype=np.int64) * stride
    return FrameLine(index, index / fps, np.full(frames, persons, np.int32), np.ones(frames, bool))


def movement(line, tracks=1, noise_px=0.0):
    """Rows of ``tracks`` walkers who are there in every frame."""
    n = len(line)
    rng = np.random.default_rng(3)
    joints = np.concatenate([walker(line.time_s, 300.0 + 250 * track) for track in range(tracks)])
    joints[:, :, :2] += rng.normal(0, noise_px, joints[:, :, :2].shape) if noise_px else 0
    angles = np.full((n * tracks, len(ANGLE_NAMES)), np.nan, np.float32)
    for side in ("left", "right"):
        knee = np.tile(knee_degrees(line.time_s), tracks) + rng.normal(0, noise_px, n * tracks)
        angles[:, ANGLE_NAMES.index(f"{side}_knee")] = knee
    return MovementRows(
        np.repeat(np.arange(tracks, dtype=np.int32), n),
        np.tile(line.index, tracks),
        np.zeros(n * tracks, bool),
        joints,
        angles,
        np.full(n * tracks, 1.6, np.float32),
        np.abs(np.tile(np.sin(line.time_s), tracks)).astype(np.float32),
    )


def thinned(rows):
    """What reads those rows of a motion table that belong to some frames."""

    def rows_of(frames):
        kept = np.isin(rows.frame_index, frames)
        return MovementRows(*(column[kept] for column in vars(rows).values()))

    return rows_of


def player_of(line, rows):
    return player_data(line, thinned(rows), SIZE, len(rows))


def record_of(video="/in/ski/jump.mp4", **changed):
    record = VideoRecord(
        video=video,
        etag="etag",
        size_bytes=1000,
        last_modified=1.5,
        status="ok",
        settings_fingerprint="0" * 16,
        run_id="20261129T180127Z-1310",
        posebatch_version="0.1.0",
        info=VideoInfo("h264", "yuv420p", *SIZE, 0, Fraction(1, 25), 0, 10.0, 25.0, 250),
        frames_processed=250,
        persons=250,
        tracks=1,
        grade="B",
        seconds=StageSeconds(1.0, 4.0, 5.0, 10.0, 0.5),
        device="cpu fp32",
        objects=(PublishedObject("poses", "poses/ski/jump.mp4.parquet", 250, 1_200_000, "0" * 16, "0" * 64),),
    )
    return replace(record, **changed)


def track_row(track_id=0, **changed):
    return {
        "track_id": track_id,
        "first_frame": 0,
        "last_frame": 249,
        "start_s": 0.0,
        "end_s": 9.96,
        "frames_seen": 250,
        "frames_gap": 0,
        "mean_pose_score": 0.9,
        "median_height_px": 420.0,
        "jitter_torso": 0.012,
        "swap_suspects": 0,
        "jump_suspects": 0,
        "is_main": track_id == 0,
        "grade": "B",
        "grade_reason": "ankles seen in 71 % of the frames",
        **changed,
    }


def material(line=None, rows=None, **changed):
    """What the page of a made-up video is made of."""
    line = frame_line() if line is None else line
    rows = movement(line) if rows is None else rows
    found = VideoMaterial("ski/jump.mp4", record_of(), player_of(line, rows), [track_row()], [])
    return replace(found, **changed)


def video_line(number=0, **changed):
    line = VideoLine.of(record_of(f"/in/clip {number}.mp4"))
    return replace(line, **{"output_path": f"clip {number}.mp4", **changed})


SUMMARY = {
    "finished": True,
    "exit_code": 0,
    "videos_total": 3,
    "published": 3,
    "failed": 0,
    "frames": 750,
    "persons": 750,
    "elapsed_s": 90.0,
    "start_s": 30.0,
    "frames_per_second": 12.5,
    "complaints": [],
}


def run_facts(lines=(), run_id="20261129T180127Z-1310", settings="stride: 1\n", **summary):
    seconds = StageSeconds(1.0, 4.0, 5.0, 10.0, 0.5) if lines else StageSeconds()
    return RunFacts(run_id, {**SUMMARY, **summary}, settings, tuple(lines), seconds, ("cpu fp32",))
