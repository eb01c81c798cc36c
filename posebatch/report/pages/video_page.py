"""The page of a video: a player of its skeletons, plots, the table of its tracks, and its files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from posebatch.core.records import VideoRecord
from posebatch.core.wording import counted
from posebatch.report.pages.addresses import VIDEO_PAGE, relative_address
from posebatch.report.pages.advice import advice_for
from posebatch.report.pages.pictures import Still, data_address
from posebatch.report.pages.player_data import PlayerData
from posebatch.report.pages.template import filled
from posebatch.report.pages.words import bytes_text, duration_words, video_name

TRACKS_LISTED: Final = 100
"""Rows of the table of tracks; the longest tracks are listed."""


MOSTLY: Final = 0.95
"""Share of side views below which a remark names it."""


ABOUT_OBJECTS: Final = {
    "poses": "joints as found, a row for each person and frame",
    "frames": "every processed frame",
    "tracks": "a row for each person over time, with grades",
    "motion": "smoothed joints and angles over time",
    "preview": "the video with skeletons drawn on it",
}


@dataclass(frozen=True)
class VideoMaterial:
    """What the page of a video is made of."""

    output_path: str
    record: VideoRecord
    player: PlayerData | None
    """None if the video has no frames table, as when it failed."""
    tracks: list[dict[str, Any]]
    """Rows of the tracks table."""
    stills: list[Still]


def video_page(material: VideoMaterial) -> str:
    """The page as HTML."""
    record = material.record
    key = VIDEO_PAGE.key(material.output_path)
    return filled(
        "video.html.j2",
        "player.js",
        name=video_name(record.video),
        folder=material.output_path.rpartition("/")[0],
        source=record.video,
        record=record,
        facts=video_facts(record),
        problem=record.error if record.status != "ok" else None,
        advice=advice_for(record.error_kind) if record.status != "ok" else None,
        player=material.player,
        head=player_head(material),
        stills=[
            {"t": round(still.time_s, 3), "u": data_address("image/webp", still.webp)} for still in material.stills
        ],
        stills_off_s=max((b.time_s - a.time_s for a, b in pairwise(material.stills)), default=0) / 2,
        tracks=listed_tracks(material.tracks),
        tracks_left_out=max(0, len(material.tracks) - TRACKS_LISTED),
        files=[
            {
                "kind": published.kind,
                "about": ABOUT_OBJECTS.get(published.kind, ""),
                "address": relative_address(key, published.key),
                "size": bytes_text(published.size_bytes),
            }
            for published in record.objects
        ],
        run_address=relative_address(key, f"runs/{record.run_id}/report.html"),
        has_movement=record.tracks is not None,
    )


def video_facts(record: VideoRecord) -> list[str]:
    """A few words about the video, for its heading."""
    facts = []
    if record.info is not None:
        facts.append(f"{record.info.width} x {record.info.height} px")
        if record.info.duration_s:
            facts.append(duration_words(record.info.duration_s))
        if record.info.avg_fps:
            facts.append(f"{record.info.avg_fps:.3g} frames per second")
    facts.append(counted(record.frames_processed, "frame"))
    if record.tracks is not None:
        facts.append(counted(record.tracks, "track"))
    return facts


def player_head(material: VideoMaterial) -> dict[str, Any]:
    """The head of the player's data, with the main track and the grades."""
    if material.player is None:
        return {}
    about = {row["track_id"]: row for row in material.tracks}
    spans = [
        {
            **span,
            "grade": (about.get(span["id"]) or {}).get("grade"),
            "main": bool((about.get(span["id"]) or {}).get("is_main")),
        }
        for span in material.player.head["tracks"]
    ]
    return {**material.player.head, "tracks": spans}


def listed_tracks(tracks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the table of tracks: the main person first, then the longest."""
    ranked = sorted(tracks, key=lambda row: (not row["is_main"], -row["frames_seen"], row["track_id"]))
    return [_track_line(row) for row in ranked[:TRACKS_LISTED]]


def _track_line(row: dict[str, Any]) -> dict[str, Any]:
    remarks = [row["grade_reason"]] if row["grade_reason"] else []
    if row["swap_suspects"]:
        remarks.append(f"{counted(row['swap_suspects'], 'swap')} of sides")
    if row["jump_suspects"]:
        remarks.append(counted(row["jump_suspects"], "jump"))
    side_view = row.get("side_view")  # tables of earlier versions lack it
    if side_view is not None and side_view < MOSTLY:
        remarks.append(f"side view in {side_view:.0%} of its frames, elsewhere angles are not those of the body")
    return {
        "id": row["track_id"],
        "main": row["is_main"],
        "grade": row["grade"] or "-",
        "from": f"{row['start_s']:.1f}",
        "to": f"{row['end_s']:.1f}",
        "seen": row["frames_seen"],
        "gap": row["frames_gap"],
        "score": _number(row["mean_pose_score"], 2),
        "height": _number(row["median_height_px"], 0),
        "jitter": _number(row["jitter_torso"], 3),
        "remarks": "; ".join(remarks),
    }


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"
