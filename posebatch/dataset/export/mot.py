"""MOTChallenge's text of boxes with identities: one file a video. OpenSim's .mot is another format."""

from __future__ import annotations

from collections.abc import Iterator

from posebatch.dataset.export.files import ExportedFile
from posebatch.dataset.export.video_motion import VideoMotion
from posebatch.dataset.tables.schemas import BBOX


def mot_files(motion: VideoMotion) -> Iterator[ExportedFile]:
    """One file, named ``.mot.txt`` like those of the challenge."""
    yield ExportedFile(".mot.txt", mot_text(motion).encode())


def mot_text(motion: VideoMotion) -> str:
    """Lines of frame, id, bb_left, bb_top, bb_width, bb_height, conf, -1, -1, -1, for each person who was found.

    The challenge counts frames, ids and pixels from 1, so each is one more than in the tables.
    """
    found = motion.rows[motion.rows.bbox_x1.notna()].astype(dict.fromkeys(BBOX, float))
    columns = (
        found.frame_index + 1,
        found.track_id + 1,
        found.bbox_x1 + 1,
        found.bbox_y1 + 1,
        found.bbox_x2 - found.bbox_x1,
        found.bbox_y2 - found.bbox_y1,
        found.bbox_score,
    )
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return "".join(
        f"{frame},{track_id}," + ",".join(f"{number:.10g}" for number in numbers) + ",-1,-1,-1\n"
        for frame, track_id, *numbers in rows
    )
