"""``posebatch demo``: a run on a rendered sample video, compared with its true joints."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posebatch.core.settings import settings_from
from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.core.wording import counted
from posebatch.dataset.tables.readers import read_frames, read_motion, read_poses
from posebatch.demo.sample import SampleTruth, keypoint_errors, write_sample
from posebatch.demo.sample_movement import walker_movements
from posebatch.run.driver import run_job

SAMPLE_NAME = "sample.mp4"


def run_demo(video: str | None, output: str) -> int:
    """Run the job on ``video``, or on the sample if None; returns the exit code."""
    settings = settings_from({"preview": ["gif"], "report": True, "segment_seconds": 4})
    if video is not None:
        return run_job([video], output, settings).exit_code
    sample = Path(output, "input", SAMPLE_NAME)
    sample.parent.mkdir(parents=True, exist_ok=True)
    print(f"drawing the sample video {sample}", flush=True)
    truth = _write_sample_once(sample)
    results = os.path.join(output, "dataset")
    exit_code = run_job([str(sample)], results, settings).exit_code
    if exit_code == 0:
        _print_errors(truth, results)
    return exit_code


def _write_sample_once(sample: Path) -> SampleTruth:
    """Draw the sample. An identical file stays untouched, so that a second demo finds it up to date."""
    new = sample.with_suffix(".new.mp4")
    truth = write_sample(new)
    if sample.exists() and sample.read_bytes() == new.read_bytes():
        new.unlink()
    else:
        new.replace(sample)
    return truth


def _print_errors(truth: SampleTruth, results: str) -> None:
    errors = keypoint_errors(truth, _poses_by_frame(results))
    print(
        f"\nagainst the sample's known joints: {errors.found} of {errors.persons} persons found, "
        f"{errors.false_persons} false; median error {errors.median_px:.1f} px "
        f"({100 * errors.median_of_height:.1f} % of a person's height), "
        f"{100 * errors.pck:.0f} % of the joints within 10 %"
    )
    for walker in walker_movements(truth, read_motion(results)):
        print(
            f"{walker.name}: {counted(len(walker.tracks), 'track')} in {walker.frames} frames; "
            f"median error of the knee angles {walker.knee_error_deg:.1f} degrees"
        )
    print(f"look at  {os.path.abspath(results)}/reports/{SAMPLE_NAME}.html")


def _poses_by_frame(results: str) -> dict[int, NDArray[np.float32]]:
    poses = read_poses(results)
    columns = [f"{joint}_{part}" for joint in KEYPOINT_NAMES for part in ("x", "y", "score")]
    keypoints = poses[columns].to_numpy(np.float32).reshape(-1, len(KEYPOINT_NAMES), 3)
    frame_of_person = poses["frame_index"].to_numpy()
    return {index: keypoints[frame_of_person == index] for index in read_frames(results)["frame_index"].tolist()}
