"""The schemas of all tables: columns, versions, metadata."""

from __future__ import annotations

import json
from typing import Final

import pyarrow as pa

from posebatch.core.skeleton import KEYPOINT_NAMES, NUM_KEYPOINTS, SKELETON_EDGES
from posebatch.motion.movement.motion_block import ANGLE_NAMES

Schema = pa.Schema
"""The type, for modules that do not import pyarrow."""


SCHEMA_VERSION: Final = 4
"""Raised with every change of a table's columns. Files of earlier versions stay readable (`VIDEOS_SCHEMAS`); files of
later versions are refused."""


STAGED_VERSION: Final = 3
"""Raised with every change of `STAGED_SCHEMA` or of its frames. An upgrade that keeps it keeps staged segments."""


ROW_GROUP_ROWS: Final = 65_536
"""Rows of a row group. Bounds the memory for writing and reading the table of a long video."""


_VIDEO = pa.dictionary(pa.int32(), pa.string())


_TIMING = [pa.field("frame_index", pa.int64()), pa.field("pts", pa.int64()), pa.field("time_s", pa.float64())]


BBOX: Final = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


KEYPOINT_COLUMNS: Final = tuple(f"{joint}_{part}" for joint in KEYPOINT_NAMES for part in ("x", "y", "score"))
"""The 51 columns of the keypoints, in COCO order."""


ANGLE_COLUMNS: Final = tuple(f"{name}_{part}" for name in ANGLE_NAMES for part in ("deg", "deg_per_s"))
"""The columns of the angles, each followed by its rate of change."""


_SHARED_METADATA: Final = {
    "posebatch.schema_version": str(SCHEMA_VERSION),
    "posebatch.keypoint_names": json.dumps(KEYPOINT_NAMES),
    "posebatch.skeleton_edges": json.dumps(SKELETON_EDGES),
    "posebatch.coordinates": "pixels of the displayed frame, x right, y down, integer = pixel centre",
    "posebatch.units": json.dumps({"time_s": "seconds", "pts": "ticks of the stream's time base", "bbox": "pixels"}),
}


POSES_SCHEMA: Final = pa.schema(
    [
        pa.field("video", _VIDEO),
        *_TIMING,
        pa.field("person", pa.int32()),
        pa.field("track_id", pa.int32()),
        *(pa.field(name, pa.float32()) for name in (*BBOX, "bbox_score", "pose_score", *KEYPOINT_COLUMNS)),
    ],
    metadata=_SHARED_METADATA,
)
"""One row per person per processed frame, ordered by frame_index and person."""


FRAMES_SCHEMA: Final = pa.schema(
    [
        pa.field("video", _VIDEO),
        *_TIMING,
        pa.field("is_keyframe", pa.bool_()),
        pa.field("status", pa.string()),
        pa.field("time_status", pa.string()),
        pa.field("num_persons", pa.int32()),
    ],
    metadata=_SHARED_METADATA,
)
"""One row per processed frame, with or without persons, decodable or not, ordered by frame_index."""


TRACKS_SCHEMA: Final = pa.schema(
    [
        pa.field("video", _VIDEO),
        pa.field("track_id", pa.int32()),
        pa.field("first_frame", pa.int64()),
        pa.field("last_frame", pa.int64()),
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
        pa.field("frames_seen", pa.int64()),
        pa.field("frames_gap", pa.int64()),
        pa.field("mean_pose_score", pa.float32()),
        pa.field("median_height_px", pa.float32()),
        pa.field("torso_px", pa.float32()),
        *(pa.field(f"{joint}_seen", pa.float32()) for joint in KEYPOINT_NAMES),
        pa.field("side_view", pa.float32()),
        pa.field("jitter_torso", pa.float32()),
        pa.field("bone_length_cv_worst", pa.float32()),
        pa.field("bone_length_cv_mean", pa.float32()),
        pa.field("swap_suspects", pa.int32()),
        pa.field("jump_suspects", pa.int32()),
        pa.field("is_main", pa.bool_()),
        pa.field("grade", pa.string()),
        pa.field("grade_reason", pa.string()),
    ],
    metadata=_SHARED_METADATA,
)
"""One row per track, ordered by track_id."""


MOTION_SCHEMA: Final = pa.schema(
    [
        pa.field("video", _VIDEO),
        pa.field("track_id", pa.int32()),
        *_TIMING,
        pa.field("person", pa.int32()),
        pa.field("facing", pa.string()),
        *(pa.field(name, pa.float32()) for name in (*KEYPOINT_COLUMNS, *ANGLE_COLUMNS)),
        *(pa.field(name, pa.float32()) for name in ("hip_x", "hip_y", "hip_height_torso", "speed_torso_per_s")),
    ],
    metadata=_SHARED_METADATA,
)
"""One row per track and processed frame from its first to its last, ordered by frame_index and track_id."""


_OBJECT = pa.struct(
    [
        pa.field("kind", pa.string()),
        pa.field("key", pa.string()),
        pa.field("rows", pa.int64()),
        pa.field("size_bytes", pa.int64()),
        pa.field("fingerprint", pa.string()),
        pa.field("sha256", pa.string()),
    ]
)


VIDEOS_SCHEMA: Final = pa.schema(
    [
        pa.field("video", pa.string()),
        pa.field("etag", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("last_modified", pa.timestamp("us", tz="UTC")),
        pa.field("status", pa.string()),
        pa.field("error_kind", pa.string()),
        pa.field("error", pa.string()),
        pa.field("attempts", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("rotation", pa.int32()),
        pa.field("mirrored", pa.bool_()),
        pa.field("sample_aspect_ratio", pa.string()),
        pa.field("coded_width", pa.int32()),
        pa.field("coded_height", pa.int32()),
        pa.field("track", pa.int32()),
        pa.field("tracks_in_file", pa.string()),
        pa.field("codec", pa.string()),
        pa.field("pixel_format", pa.string()),
        pa.field("time_base", pa.string()),
        pa.field("start_pts", pa.int64()),
        pa.field("duration_s", pa.float64()),
        pa.field("avg_fps", pa.float64()),
        pa.field("is_vfr", pa.bool_()),
        pa.field("frames_in_header", pa.int64()),
        pa.field("frames_decoded", pa.int64()),
        pa.field("frames_processed", pa.int64()),
        pa.field("timestamps_repaired", pa.int64()),
        pa.field("frames_resized", pa.int64()),
        pa.field("persons", pa.int64()),
        pa.field("tracks", pa.int64()),
        pa.field("grade", pa.string()),
        pa.field("detector", pa.string()),
        pa.field("pose", pa.string()),
        pa.field("settings_fingerprint", pa.string()),
        pa.field("posebatch_version", pa.string()),
        pa.field("run_id", pa.string()),
        pa.field("decode_seconds", pa.float64()),
        pa.field("detect_seconds", pa.float64()),
        pa.field("pose_seconds", pa.float64()),
        pa.field("total_seconds", pa.float64()),
        pa.field("wait_seconds", pa.float64()),
        pa.field("device", pa.string()),
        pa.field("objects", pa.list_(_OBJECT)),
    ],
    metadata=_SHARED_METADATA,
)
"""One row per video: the commit record."""


_SINCE_VERSION_4: Final = ("tracks", "grade")


_SINCE_VERSION_3: Final = (
    *("mirrored", "sample_aspect_ratio", "coded_width", "coded_height", "track", "tracks_in_file"),
    *("timestamps_repaired", "frames_resized", "time_status"),
)


def _without(schema: pa.Schema, names: tuple[str, ...]) -> pa.Schema:
    return pa.schema([column for column in schema if column.name not in names], metadata=schema.metadata)


_VIDEOS_VERSION_3: Final = _without(VIDEOS_SCHEMA, _SINCE_VERSION_4)


_VIDEOS_VERSION_2: Final = _without(_VIDEOS_VERSION_3, _SINCE_VERSION_3)


_OBJECTS_COLUMN: Final = _VIDEOS_VERSION_2.get_field_index("objects")


_VIDEOS_WITHOUT_SHA256: Final = _VIDEOS_VERSION_2.set(
    _OBJECTS_COLUMN, pa.field("objects", pa.list_(pa.struct([part for part in _OBJECT if part.name != "sha256"])))
)


_VIDEOS_WITHOUT_WAIT: Final = _VIDEOS_WITHOUT_SHA256.remove(_VIDEOS_VERSION_2.get_field_index("wait_seconds"))


POSES_SCHEMAS: Final = (POSES_SCHEMA,)
"""Schemas of poses tables that can be read: today's, then those of earlier versions, the latest first."""


FRAMES_SCHEMAS: Final = (FRAMES_SCHEMA, _without(FRAMES_SCHEMA, _SINCE_VERSION_3))
"""The same for frames tables."""


TRACKS_SCHEMAS: Final = (TRACKS_SCHEMA, _without(TRACKS_SCHEMA, ("side_view",)))
"""The same for tracks tables."""


MOTION_SCHEMAS: Final = (MOTION_SCHEMA, _without(MOTION_SCHEMA, ("facing",)))
"""The same for motion tables."""


VIDEOS_SCHEMAS: Final = (
    VIDEOS_SCHEMA,
    _VIDEOS_VERSION_3,
    _VIDEOS_VERSION_2,
    _VIDEOS_WITHOUT_SHA256,
    _VIDEOS_WITHOUT_WAIT,
)
"""The same for commit records."""


TABLES: Final = {
    "poses": POSES_SCHEMA,
    "frames": FRAMES_SCHEMA,
    "videos": VIDEOS_SCHEMA,
    "tracks": TRACKS_SCHEMA,
    "motion": MOTION_SCHEMA,
}
"""The published tables, by the name of their folder."""


COLUMNS: Final = frozenset(
    name
    for schema in (POSES_SCHEMA, FRAMES_SCHEMA, TRACKS_SCHEMA, MOTION_SCHEMA, VIDEOS_SCHEMA)
    for name in schema.names
)
"""Names of all columns of the published tables, in lower case."""


PERSON: Final = pa.struct(
    [
        pa.field("bbox_xyxy", pa.list_(pa.float32(), 4)),
        pa.field("bbox_score", pa.float32()),
        pa.field("pose_score", pa.float32()),
        pa.field("keypoints", pa.list_(pa.float32(), NUM_KEYPOINTS * 3)),
    ]
)


STAGED_SCHEMA: Final = pa.schema(
    [
        pa.field("frame_index", pa.int64()),
        pa.field("pts", pa.int64()),
        pa.field("is_keyframe", pa.bool_()),
        pa.field("status", pa.string()),
        pa.field("time_status", pa.string()),
        pa.field("persons", pa.list_(PERSON)),
    ]
)
"""One row per processed frame of a segment, with a list of its persons."""
