"""Find what a user names as ``VIDEO[#track][@from-to]`` in an output, and read it."""

from __future__ import annotations

import difflib
import fnmatch
import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from posebatch.core.errors import InputError, UsageError
from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.core.wording import counted
from posebatch.dataset.layout import MOTION, RECORDS
from posebatch.dataset.output_paths import encode_output_path
from posebatch.dataset.tables.readers import read_motion, read_tracks, read_videos
from posebatch.dataset.tables.schemas import KEYPOINT_COLUMNS
from posebatch.motion.comparing.performance import Performance
from posebatch.motion.movement.motion_block import ANGLE_NAMES
from posebatch.storage.open import open_store

if TYPE_CHECKING:
    import pandas as pd

_NAMED: Final = re.compile(
    r"(?P<video>.+?)(?:#(?P<track>\d+))?(?:@(?P<from_s>\d*\.?\d*)-(?P<to_s>\d*\.?\d*))?", re.DOTALL
)

NAMES_SHOWN: Final = 5
"""Similar names that a message lists."""


@dataclass(frozen=True)
class Wanted:
    """What a user asked for."""

    video: str
    track: int | None = None
    """None is the main person."""
    from_s: float = 0.0
    to_s: float = float("inf")

    @property
    def has_range(self) -> bool:
        """Whether a part of the video was asked for."""
        return self.from_s > 0 or self.to_s < float("inf")


@dataclass(frozen=True)
class Chosen:
    """A performance of an output, and where it comes from."""

    performance: Performance
    source: str
    """Address of the video, as the run read it."""
    video: str
    """Its path in the output."""
    track: int
    grade: str | None
    """The grade of the track."""


def parse_wanted(text: str) -> Wanted:
    """Take ``VIDEO[#track][@from-to]`` apart; ``@12-`` and ``@-30`` are open. Raises `UsageError`.

    >>> parse_wanted("ski/clip.mp4#2@12.5-20")
    Wanted(video='ski/clip.mp4', track=2, from_s=12.5, to_s=20.0)
    """
    match = _NAMED.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r}: a performance is written VIDEO[#track][@from-to], as in clip.mp4#0@2.5-8")
    try:
        from_s, to_s = float(match["from_s"] or 0.0), float(match["to_s"] or "inf")
    except ValueError:  # a lone point
        from_s, to_s = 1.0, 0.0
    if from_s >= to_s:
        raise UsageError(f"{text!r}: the range must be seconds, the smaller first, as in clip.mp4@2.5-8")
    return Wanted(match["video"], None if match["track"] is None else int(match["track"]), from_s, to_s)


def read_performance(output: str, wanted: Wanted, endpoint_url: str | None = None) -> Chosen:
    """Read one performance of an output.

    Raises `InputError` if the video, its motion, the track or the range is not there, and names those that are.
    """
    video = _find_video(output, wanted.video, endpoint_url)
    pattern = glob.escape(video)
    tracks = read_tracks(output, pattern, ["track_id", "start_s", "end_s", "is_main", "grade"], endpoint_url)
    where = f"{output}: {video}"
    track = _find_track(tracks, wanted.track, where)
    columns = ["video", "track_id", "time_s", *KEYPOINT_COLUMNS, *(f"{name}_deg" for name in ANGLE_NAMES)]
    motion = read_motion(output, pattern, columns, endpoint_url)
    rows = motion[motion["track_id"] == track]
    whole = _performance(rows, f"{video}#{track}")
    part = whole.between(wanted.from_s, wanted.to_s)
    if not len(part.time_s):
        raise InputError(
            f"{where}: track {track} is not seen from {wanted.from_s:g} to {wanted.to_s:g} s; it is seen from "
            f"{whole.time_s[0]:.2f} to {whole.time_s[-1]:.2f} s"
        )
    if wanted.has_range:
        part = replace(part, label=f"{part.label}@{part.time_s[0]:.4g}-{part.time_s[-1]:.4g}")
    grades = tracks.loc[tracks["track_id"] == track, "grade"].tolist()
    return Chosen(part, str(rows["video"].iloc[0]), video, track, grades[0] if grades else None)


def matching_videos(output: str, pattern: str, endpoint_url: str | None = None) -> tuple[str, ...]:
    """The videos of an output that have motion and match a glob. Raises `InputError` if there is none."""
    found = tuple(name for name in _videos_with_motion(output, endpoint_url) if fnmatch.fnmatchcase(name, pattern))
    if not found:
        raise InputError(f"{output}: no video with motion matches {pattern!r}")
    return found


def _find_video(output: str, name: str, endpoint_url: str | None) -> str:
    known = sorted(_videos_with_motion(output, endpoint_url))
    for path in (name, encode_output_path(name)):
        if path in known:
            return path
    tails = [path for path in known if path.endswith(f"/{name}")]
    if len(tails) == 1:
        return tails[0]
    if tails:
        raise InputError(f"{output}: {name!r} may be each of {_listed(tails)}: write the whole path")
    store = open_store(output, endpoint_url)
    published = [key[len(RECORDS) : -len(".parquet")] for key in (item.key for item in store.list(RECORDS))]
    if name in published and (failure := _failure(output, name, endpoint_url)):
        raise InputError(f"{output}: {name} failed, so there is nothing to show: {failure}")
    if name in published or (published and not known):
        whose = f"{name} has" if name in published else "it has"
        raise InputError(f"{output}: {whose} no motion; run: posebatch derive --output {output}")
    if not published:
        raise InputError(f"{output}: no videos; is it an output of posebatch?")
    near = difflib.get_close_matches(name, known, NAMES_SHOWN, 0.4) or known[:NAMES_SHOWN]
    raise InputError(f"{output}: no video {name!r}; there is {_listed(near)}")


def _failure(output: str, path: str, endpoint_url: str | None) -> str | None:
    """Why a video failed; None if it did not."""
    rows = read_videos(output, glob.escape(path), ["status", "error"], endpoint_url)
    return next((str(row.error) for row in rows.itertuples() if row.status == "failed"), None)


def _videos_with_motion(output: str, endpoint_url: str | None) -> Iterator[str]:
    for listed in open_store(output, endpoint_url).list(f"{MOTION.folder}/"):
        path = MOTION.output_path(listed.key)
        if path is not None:
            yield path


def _find_track(tracks: pd.DataFrame, wanted: int | None, where: str) -> int:
    """The wanted track; by default the main person, or the only one."""
    known = [int(track) for track in tracks["track_id"]]
    spans = [
        f"{track} ({start:.1f} to {end:.1f} s)"
        for track, start, end in zip(known, tracks["start_s"], tracks["end_s"], strict=True)
    ]
    if not known:
        raise InputError(f"{where}: nobody was tracked in it")
    if wanted is not None:
        if wanted not in known:
            raise InputError(f"{where}: no track {wanted}; there {_are(spans)}")
        return wanted
    main = [track for track, is_main in zip(known, tracks["is_main"], strict=True) if is_main]
    if main:
        return main[0]
    if len(known) == 1:
        return known[0]
    raise InputError(f"{where}: it has no main person; choose a track, as in VIDEO#{known[0]}; there {_are(spans)}")


def _are(spans: Sequence[str]) -> str:
    return f"{'is' if len(spans) == 1 else 'are'} {counted(len(spans), 'track')}: {_listed(spans, 20)}"


def _listed(names: Sequence[str], limit: int = NAMES_SHOWN) -> str:
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


def _performance(rows: pd.DataFrame, label: str) -> Performance:
    joints = rows[list(KEYPOINT_COLUMNS)].to_numpy(np.float64).reshape(-1, NUM_KEYPOINTS, 3)
    angles = rows[[f"{name}_deg" for name in ANGLE_NAMES]].to_numpy(np.float64)
    time_s = rows["time_s"].to_numpy(np.float64)
    later = np.concatenate([[True], time_s[1:] > np.maximum.accumulate(time_s)[:-1]])  # repaired times may repeat
    return Performance(label, tuple(ANGLE_NAMES), time_s[later], angles[later], joints[later])
