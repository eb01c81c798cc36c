"""Explain one instant of a video: run both networks, draw what they saw, and say why joints are left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from posebatch.core.settings import EstimatorSettings
from posebatch.pose.estimator import PoseEstimator
from posebatch.pose.inspection import Inspection, inspect
from posebatch.report.drawing import DRAWING_THRESHOLDS
from posebatch.report.explanation import ExplainedPerson, draw_explanation
from posebatch.report.joint_reasons import judge_joints
from posebatch.storage.open import open_newest
from posebatch.video.instant import Instant, frame_at


@dataclass(frozen=True)
class Explanation:
    """The picture and the sentences about one instant."""

    picture: Image.Image
    lines: tuple[str, ...]


def explain(
    video: str,
    instant: Instant,
    settings: EstimatorSettings,
    device: str = "auto",
    video_track: str = "default",
    endpoint_url: str | None = None,
    access: str = "",
) -> Explanation:
    """Explain the frame of ``video``, an address as `open_newest` takes it, at an instant.

    ``access``: as in `SourceVideo`.

    Reads the header and the part of the video around the instant. Raises `InputError` for an instant outside the video,
    and the errors of opening, decoding and loading networks.
    """
    with open_newest(video, endpoint_url, access) as file:
        info, frame = frame_at(file, video, instant, video_track=video_track)
    record = frame.records[0]
    inspection = inspect(PoseEstimator.load(settings, device), frame)
    persons = _explained(inspection, (info.width, info.height))
    time_s = float(record.pts * info.time_base)
    title = f"{video}: frame {record.frame_index} at {time_s:.3f} s, {info.width}x{info.height}"
    picture = draw_explanation(np.asarray(frame.images)[0], title, persons)
    return Explanation(picture, (title, *_sentences(persons, settings)))


def _explained(inspection: Inspection, size_wh: tuple[int, int]) -> list[ExplainedPerson]:
    poses = inspection.poses
    return [
        ExplainedPerson(
            box,
            float(score),
            person.keypoints,
            person.crop,
            person.heatmaps,
            person.points_in_heatmaps,
            judge_joints(person.keypoints, person.heatmaps, DRAWING_THRESHOLDS, size_wh),
        )
        for box, score, person in zip(poses.bbox_xyxy, poses.bbox_scores, inspection.persons, strict=True)
    ]


def _sentences(persons: list[ExplainedPerson], settings: EstimatorSettings) -> list[str]:
    if not persons:
        return [
            f"nobody was found: no box scored {settings.bbox_thr:g} (--bbox-thr) or more; try a lower --bbox-thr, or "
            "--preset far for small persons"
        ]
    sentences = []
    for number, person in enumerate(persons):
        left_out = [verdict for verdict in person.verdicts if not verdict.drawn]
        box = ", ".join(f"{side:.0f}" for side in person.bbox_xyxy)
        drawn = len(person.verdicts) - len(left_out)
        sentences.append(f"person {number}: box {box} with score {person.bbox_score:.2f}, {drawn} of 17 joints drawn")
        sentences += [f"  {verdict.name}: {verdict.reason}" for verdict in left_out]
    return sentences
