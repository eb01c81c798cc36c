"""Names of folders and objects in an output, and the registry of what is published for a video.

Keys below the output root::

    poses/PATH.parquet, frames/PATH.parquet                      artifacts (`ARTIFACTS`): what the networks found
    tracks/PATH.parquet, motion/PATH.parquet, previews/PATH.gif  artifacts that are derived from these
    previews_mp4/PATH.mp4, previews_webp/PATH.webp, previews_sheet/PATH.jpg
    videos/PATH.parquet                                          the commit record, written last
    compact/...                                                  see `posebatch.dataset.compaction.names`
    runs/RUN/...                                                 settings, log and records of one run
    _state/staging/WORK/...                                      finished segments of unfinished videos, and the index
                                                                 of packets where the container has none
    _state/attempts/WORK.json                                    failed attempts at a video
    _state/leases/...                                            which run holds the output
    _state/ledger/...                                            summary of all commit records, a cache

PATH is a video's output path (see `posebatch.dataset.output_paths`). WORK is the id of a `StagingArea`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from posebatch.core.records import VideoRecord
from posebatch.core.shards import Shard
from posebatch.dataset.tables.schemas import (
    FRAMES_SCHEMAS,
    MOTION_SCHEMAS,
    POSES_SCHEMAS,
    SCHEMA_VERSION,
    TRACKS_SCHEMAS,
    Schema,
)


@dataclass(frozen=True)
class Artifact:
    """One kind of object that may be published for a video, and how to check it."""

    kind: str
    """The name that a commit record gives it, see `PublishedObject.kind`."""
    folder: str
    """The folder below the output root, which no other kind shares."""
    suffix: str
    """The file name extension: no dots."""
    identified_by: Literal["data", "motion", "preview"]
    """The fingerprint that its `PublishedObject` carries: `data_fingerprint`, `motion_fingerprint` or
    `preview_fingerprint`."""
    required: bool = False
    """Whether every video that did not fail must have it."""
    schemas: tuple[Schema, ...] = ()
    """Of a table: today's schema, then earlier ones that stay readable. `verify` checks columns, rows and metadata."""
    image_format: str | None = None
    """Of pictures: Pillow's name of the format. A deep `verify` decodes and counts the frames."""
    is_film: bool = False
    """Whether it is a video. A deep `verify` decodes it and counts the frames."""
    stated_rows: Callable[[VideoRecord], int] | None = None
    """The number of rows that the commit record also states by itself, where it does."""

    def key(self, output_path: str) -> str:
        """Key of this artifact of a video."""
        if self.suffix not in GUARDED_SUFFIXES:  # no folder may be named like a file of this kind: disks allow one only
            output_path = re.sub(rf"(?i)\.({re.escape(self.suffix)})(?=/)", r"%2E\1", output_path)
        return f"{self.folder}/{output_path}.{self.suffix}"

    def output_path(self, key: str) -> str | None:
        """The inverse of `key`: the video whose artifact has this key; None if the key is not one of this kind."""
        begin, end = f"{self.folder}/", f".{self.suffix}"
        if not (key.startswith(begin) and key.endswith(end)):
            return None
        path = key[len(begin) : -len(end)]
        if self.suffix not in GUARDED_SUFFIXES:  # at the start of a name, %2E is an escape of `encode_output_path`
            path = re.sub(rf"(?i)(?<=[^/])%2E({re.escape(self.suffix)})(?=/)", r".\1", path)
        return path if self.key(path) == key else None


GUARDED_SUFFIXES: Final = ("parquet", "gif")
"""Suffixes that `encode_output_path` escapes at the end of folder names. Fixed: more would rename existing results."""


POSES: Final = Artifact(
    "poses", "poses", "parquet", "data", True, POSES_SCHEMAS, stated_rows=lambda record: record.persons
)


FRAMES: Final = Artifact(
    "frames", "frames", "parquet", "data", True, FRAMES_SCHEMAS, stated_rows=lambda record: record.frames_processed
)


TRACKS: Final = Artifact(
    "tracks", "tracks", "parquet", "motion", False, TRACKS_SCHEMAS, stated_rows=lambda record: record.tracks or 0
)
"""Published together with `MOTION`, unless ``--no-track`` was chosen."""


MOTION: Final = Artifact("motion", "motion", "parquet", "motion", schemas=MOTION_SCHEMAS)


PREVIEW: Final = Artifact("preview", "previews", "gif", "preview", image_format="GIF")


PREVIEWS: Final[Mapping[str, Artifact]] = {
    "gif": PREVIEW,
    "mp4": Artifact("preview_mp4", "previews_mp4", "mp4", "preview", is_film=True),
    "webp": Artifact("preview_webp", "previews_webp", "webp", "preview", image_format="WEBP"),
    "sheet": Artifact("preview_sheet", "previews_sheet", "jpg", "preview", image_format="JPEG"),
}
"""The artifact of each of `posebatch.core.preview_settings.PREVIEW_FORMATS`."""


PREVIEW_KINDS: Final = frozenset(artifact.kind for artifact in PREVIEWS.values())


ARTIFACTS: tuple[Artifact, ...] = (POSES, FRAMES, TRACKS, MOTION, *PREVIEWS.values())
"""All kinds. Publication, `verify` and `gc` go by this list, so a new kind is one more line here."""


RECORDS: Final = "videos/"


STAGING: Final = "_state/staging/"


ATTEMPTS: Final = "_state/attempts/"


LEDGER_KEY: Final = f"_state/ledger/1-{SCHEMA_VERSION}"
"""Raise the first number whenever the bytes of the ledger change their meaning. Each schema version has its own."""


def ledger_key(part: Shard | None) -> str:
    """Key of the ledger of a shard; None: of the whole output."""
    return LEDGER_KEY if part is None else f"{LEDGER_KEY}-shard-{part.number}-of-{part.count}"


def record_key(output_path: str) -> str:
    """Key of a video's commit record."""
    return f"{RECORDS}{output_path}.parquet"


def recorded_path(key: str) -> str | None:
    """The inverse of `record_key`: the output path of a video; None if the key is that of no commit record."""
    if not (key.startswith(RECORDS) and key.endswith(".parquet")):
        return None
    return key[len(RECORDS) : -len(".parquet")]


def data_folders() -> tuple[str, ...]:
    """The folders of all artifacts."""
    return tuple(artifact.folder for artifact in ARTIFACTS)


def artifact_keys(output_path: str) -> list[str]:
    """Keys of all artifacts that a video may have."""
    return [artifact.key(output_path) for artifact in ARTIFACTS]


def required_kinds() -> list[str]:
    """Kinds that every video must have unless it failed."""
    return [artifact.kind for artifact in ARTIFACTS if artifact.required]


def artifact_of_kind(kind: str) -> Artifact | None:
    """The artifact that a commit record calls ``kind``; None if this version does not know it."""
    return next((artifact for artifact in ARTIFACTS if artifact.kind == kind), None)


def output_path_of(key: str) -> str | None:
    """The video whose artifact has this key, or None if it is no key of an artifact."""
    paths = (artifact.output_path(key) for artifact in ARTIFACTS)
    return next((path for path in paths if path is not None), None)
