"""Exported files, read back by the libraries that own their formats: values are those of the tables within float32."""

import contextlib
import io
import json
from pathlib import Path

import ezc3d
import numpy as np
import pandas as pd
import pytest
import sleap_io
from pycocotools.coco import COCO
from support.motion_factories import HEIGHT, STATURE_PX, publish_motion

import posebatch
from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.dataset.export.formats import FORMATS
from posebatch.dataset.export.markers import MARKER_NAMES
from posebatch.dataset.export.reading import MotionChoice
from posebatch.dataset.export.video_motion import BOX_COLUMNS, BodyHeight
from posebatch.dataset.export.whole_output import export_output
from posebatch.dataset.tables.schemas import KEYPOINT_COLUMNS, MOTION_SCHEMA

STRANGE = "räder/a b=1;'\"%&,日本\t<script>.mp4"
METRES_PER_PX = 1.8 / STATURE_PX


def export(tmp_path: Path, format_name: str, **choice) -> list[Path]:
    """Files of an export of the output in ``out``, for a person of 180 cm."""
    chosen = MotionChoice(**{"body": BodyHeight(180, is_assumed=False), **choice})
    videos = list(export_output(str(tmp_path / "out"), str(tmp_path / "to"), format_name, choice=chosen))
    return [Path(address) for video in videos for address in video.files]


def table_of(tmp_path: Path, raw: bool = False) -> pd.DataFrame:
    """Joints in the order of frame and track, as `posebatch.read_motion` or `posebatch.read_poses` gives them."""
    motion = posebatch.read_motion(str(tmp_path / "out")).sort_values(["frame_index", "track_id"], ignore_index=True)
    if not raw:
        return motion
    poses = posebatch.read_poses(str(tmp_path / "out"))
    keys = ["frame_index", "track_id"]
    return motion[[*keys, "time_s", "person"]].merge(poses[[*keys, *KEYPOINT_COLUMNS]], how="left", on=keys)


def joints(rows: pd.DataFrame) -> np.ndarray:
    return rows[list(KEYPOINT_COLUMNS)].to_numpy(np.float32).reshape(-1, 17, 3)


def in_metres(tmp_path: Path, raw: bool, track: int) -> np.ndarray:
    """Points (frames, 17, 3) of a track; raw joints only where the smoothed ones rest on data."""
    rows, smoothed = table_of(tmp_path, raw), joints(table_of(tmp_path))
    xy = joints(rows)[:, :, :2].astype(float)
    if raw:
        xy[~(smoothed[:, :, 2] > 0)] = np.nan
    xy = xy[rows.track_id == track]
    return np.stack([xy[..., 0], HEIGHT - 1 - xy[..., 1], 0 * xy[..., 0]], axis=-1) * METRES_PER_PX


# --- COCO ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [False, True])
def test_coco_results_load_into_pycocotools(tmp_path: Path, raw: bool):
    publish_motion(tmp_path / "out")
    results, images = export(tmp_path, "coco", raw=raw)
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(str(images)).loadRes(str(results))
    assert loaded.getCatIds() == [1]
    assert loaded.loadCats(1)[0]["keypoints"] == list(KEYPOINT_NAMES)
    rows = table_of(tmp_path, raw)
    expected = {(row.frame_index, row.track_id): i for i, row in enumerate(rows.itertuples())}
    found = {(entry["image_id"], entry["track_id"]): entry for entry in loaded.loadAnns(loaded.getAnnIds())}
    unknown = {key for key, i in expected.items() if np.isnan(joints(rows)[i, :, 0]).all()}
    assert set(found) == set(expected) - unknown
    assert len(unknown) == (4 if raw else 2)
    for key, entry in found.items():
        points = np.array(entry["keypoints"], np.float32).reshape(17, 3)
        np.testing.assert_array_equal(points, np.nan_to_num(joints(rows)[expected[key]]))
    assert found[0, 0]["score"] == 0.8125


def test_coco_images_are_the_processed_frames(tmp_path: Path):
    publish_motion(tmp_path / "out", stride=5)
    images = json.loads(export(tmp_path, "coco")[1].read_text())["images"]
    assert [image["id"] for image in images] == list(range(0, 100, 5))
    assert {(image["width"], image["height"]) for image in images} == {(320, 240)}


# --- DeepLabCut ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [False, True])
def test_dlc_has_one_row_for_each_frame_of_the_video(tmp_path: Path, raw: bool):
    publish_motion(tmp_path / "out", stride=3)
    hdf5, text = export(tmp_path, "dlc", raw=raw)
    table = pd.read_hdf(hdf5, "df_with_missing")
    same = pd.read_csv(text, header=[0, 1, 2, 3], index_col=0, dtype=np.float32)
    assert table.columns.names == ["scorer", "individuals", "bodyparts", "coords"]
    assert list(table.index) == list(range(19 * 3 + 1))
    assert same.columns.equals(table.columns)
    np.testing.assert_array_equal(same.to_numpy(np.float32), table.to_numpy(np.float32))
    values = table.to_numpy(np.float32).reshape(len(table), 2, 17, 3)
    rows = table_of(tmp_path, raw)
    np.testing.assert_array_equal(values[rows.frame_index, rows.track_id], joints(rows))
    assert np.isnan(values[1::3]).all()


# --- SLEAP -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [False, True])
def test_sleap_labels_have_the_frames_of_the_video(tmp_path: Path, raw: bool):
    publish_motion(tmp_path / "out", STRANGE, stride=3)
    (path,) = export(tmp_path, "sleap", raw=raw)
    labels = sleap_io.load_slp(str(path), open_videos=False)
    assert [node.name for node in labels.skeleton.nodes] == list(KEYPOINT_NAMES)
    assert [track.name for track in labels.tracks] == ["track0", "track1"]
    assert labels.video.filename == STRANGE
    rows = table_of(tmp_path, raw)
    expected = {(row.frame_index, f"track{row.track_id}"): i for i, row in enumerate(rows.itertuples())}
    found = 0
    for frame in labels:
        for instance in frame.instances:
            points = joints(rows)[expected[frame.frame_idx, instance.track.name]]
            np.testing.assert_array_equal(instance.numpy().astype(np.float32), points[:, :2])
            known = ~np.isnan(points[:, 2])
            np.testing.assert_array_equal(instance.points["score"][known].astype(np.float32), points[known, 2])
            found += 1
    assert found == (36 if raw else 38)


# --- MOT -------------------------------------------------------------------------------------------------------------


def test_mot_has_the_boxes_of_poses_counted_from_1(tmp_path: Path):
    publish_motion(tmp_path / "out", stride=2)
    (path,) = export(tmp_path, "mot")
    lines = np.loadtxt(path, delimiter=",")
    poses = posebatch.read_poses(str(tmp_path / "out")).sort_values(["frame_index", "track_id"])
    assert len(lines) == len(poses) == 36
    np.testing.assert_array_equal(lines[:, :2].astype(int) - 1, poses[["frame_index", "track_id"]])
    corners = np.concatenate([lines[:, 2:4] - 1, lines[:, 2:4] - 1 + lines[:, 4:6]], axis=1)
    np.testing.assert_allclose(corners, poses[["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"]], rtol=1e-6)
    np.testing.assert_array_equal(lines[:, 6], poses.bbox_score)
    assert (lines[:, 7:] == -1).all()
    assert lines.shape[1] == 10


# --- TRC -------------------------------------------------------------------------------------------------------------


def cells_of(line: str) -> list[str]:
    """A line as OpenSim's reader splits it: an empty last cell counts only if a tab follows it."""
    cells = line.split("\t")
    return cells[:-1] if cells[-1] == "" else cells


def read_trc(text: str) -> tuple[dict[str, str], list[str], np.ndarray, np.ndarray]:
    """Header, markers, times (n,) and points (n, markers, 3) by the rules of OpenSim's ``TRCFileAdapter``."""
    lines = text.split("\n")
    assert lines[0].split()[:3] == ["PathFileType", "4", "(X/Y/Z)"]
    assert lines[1].split("\t") == [
        *("DataRate", "CameraRate", "NumFrames", "NumMarkers", "Units"),
        *("OrigDataRate", "OrigDataStartFrame", "OrigNumFrames"),
    ]
    header = dict(zip(lines[1].split("\t"), lines[2].split("\t"), strict=True))
    count = int(header["NumMarkers"])
    labels = [cell for cell in cells_of(lines[3]) if cell]
    assert labels[:2] == ["Frame#", "Time"]
    assert len(labels) == count + 2
    axes = [cell for cell in cells_of(lines[4]) if cell]
    assert axes == [f"{axis}{number}" for number in range(1, count + 1) for axis in "XYZ"]
    assert lines[5] == ""
    assert lines[-1] == ""
    rows = [cells_of(line) for line in lines[6:-1]]
    assert {len(row) for row in rows} == {3 * count + 2}
    assert len(rows) == int(header["NumFrames"])
    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    points = [[np.nan if cell == "" else float(cell) for cell in row[2:]] for row in rows]
    times = np.array([float(row[1]) for row in rows])
    assert (np.diff(times) > 0).all()
    return header, labels[2:], times, np.array(points).reshape(len(rows), count, 3)


@pytest.mark.parametrize("raw", [False, True])
def test_trc_has_metres_and_times_of_each_track(tmp_path: Path, raw: bool):
    publish_motion(tmp_path / "out", gap=slice(0, 4))
    paths = export(tmp_path, "trc", raw=raw)
    assert [path.name for path in paths] == ["a.mp4.track0.trc", "a.mp4.track1.trc"]
    for track, path in enumerate(paths):
        header, markers, times, points = read_trc(path.read_text())
        assert (header["DataRate"], header["Units"]) == ("25.000000", "m")
        assert markers == list(MARKER_NAMES)
        np.testing.assert_array_equal(times, np.arange(20) / 25)
        np.testing.assert_allclose(points, in_metres(tmp_path, raw, track), rtol=1e-5, atol=1e-6)


def test_trc_marks_a_variable_rate_and_keeps_true_times(tmp_path: Path):
    time_s = np.cumsum(np.tile([0.02, 0.05], 10))
    publish_motion(tmp_path / "out", time_s=time_s, tracks=1)
    (path,) = export(tmp_path, "trc")
    assert path.name == "a.mp4.track0.variable-rate.trc"
    np.testing.assert_array_equal(read_trc(path.read_text())[2], time_s)


def test_trc_of_a_strange_name_keeps_its_lines(tmp_path: Path):
    publish_motion(tmp_path / "out", STRANGE, tracks=1)
    (path,) = export(tmp_path, "trc")
    assert path.parent == tmp_path / "to/räder"
    assert read_trc(path.read_text())[0]["NumFrames"] == "20"


# --- C3D -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [False, True])
def test_c3d_has_metres_of_each_track(tmp_path: Path, raw: bool):
    publish_motion(tmp_path / "out", STRANGE)
    for track, path in enumerate(export(tmp_path, "c3d", raw=raw)):
        file = ezc3d.c3d(str(path))
        point = file["parameters"]["POINT"]
        assert point["RATE"]["value"] == [25]
        assert point["UNITS"]["value"] == ["m"]
        assert point["LABELS"]["value"] == list(MARKER_NAMES)
        assert (point["X_SCREEN"]["value"], point["Y_SCREEN"]["value"]) == (["+X"], ["+Y"])
        assert file["parameters"]["POSEBATCH"]["TRACK"]["value"] == [track]
        points = file["data"]["points"][:3].transpose(2, 1, 0)
        np.testing.assert_allclose(points, in_metres(tmp_path, raw, track), rtol=1e-5, atol=1e-6)


def test_c3d_of_a_variable_rate_is_resampled_in_even_steps(tmp_path: Path):
    time_s = np.cumsum(np.tile([0.02, 0.04, 0.02], 7))  # the walker goes 30 px/s to the right, at any time
    publish_motion(tmp_path / "out", time_s=time_s, tracks=1, gap=slice(0, 0))
    (path,) = export(tmp_path, "c3d")
    assert path.name == "a.mp4.track0.resampled.c3d"
    file = ezc3d.c3d(str(path))
    assert file["parameters"]["POINT"]["RATE"]["value"] == [50]
    nose_x = file["data"]["points"][0, 0]
    assert len(nose_x) == 28  # 0.54 s at 50 Hz
    np.testing.assert_allclose(np.diff(nose_x), 30 / 50 * METRES_PER_PX, rtol=1e-3)


def test_c3d_refuses_more_frames_than_its_readers_see(tmp_path: Path):
    publish_motion(tmp_path / "out", time_s=np.arange(65_536) / 25, tracks=1)
    (video,) = export_output(str(tmp_path / "out"), str(tmp_path / "to"), "c3d")
    assert video.files == ()
    assert video.is_incomplete
    assert "65,536 frames, and a C3D file takes 65,535" in video.notes[0]


# --- tables ----------------------------------------------------------------------------------------------------------


def read_flat(path: Path) -> pd.DataFrame:
    if path.suffix == ".csv":
        return pd.read_csv(path)
    return pd.read_json(path, lines=True, precise_float=True, dtype=False)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("format_name", ["csv", "ndjson", "xlsx"])
def test_flat_tables_are_those_of_the_output(tmp_path: Path, format_name: str, raw: bool):
    publish_motion(tmp_path / "out", STRANGE)
    paths = export(tmp_path, format_name, raw=raw)
    if format_name == "xlsx":
        sheets = pd.read_excel(paths[0], sheet_name=None)
        motion, tracks = sheets["motion"], sheets["tracks"]
    else:
        motion, tracks = map(read_flat, paths)
    assert list(motion.columns) == [*MOTION_SCHEMA.names, *BOX_COLUMNS]
    expected = table_of(tmp_path, raw)
    assert set(motion.video) == set(tracks.video) == {STRANGE}
    if not raw:
        assert motion.facing.fillna("").tolist() == expected.facing.fillna("").tolist()
    for name in expected.columns.drop(["video", "facing"], errors="ignore"):
        digits = expected[name].dtype
        np.testing.assert_array_equal(motion[name].to_numpy(digits), expected[name].to_numpy(), err_msg=name)
    assert tracks.grade_reason.tolist() == ["=1+1", "=1+1"]  # a text, not a formula
    assert tracks.is_main.tolist() == [True, False]
    assert tracks.jitter_torso.isna().all()


def test_xlsx_refuses_more_rows_than_a_sheet_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    publish_motion(tmp_path / "out")
    monkeypatch.setattr("posebatch.dataset.export.workbook.MAX_ROWS", 40)
    (video,) = export_output(str(tmp_path / "out"), str(tmp_path / "to"), "xlsx")
    assert (video.files, video.is_incomplete) == ((), True)
    assert video.notes == ("xlsx: 40 rows, and a sheet of Excel takes 39; choose --track main, or csv",)


# --- all formats -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_name", FORMATS)
def test_each_format_takes_one_track_that_is_never_seen_whole(tmp_path: Path, format_name: str):
    publish_motion(tmp_path / "out", tracks=1, gap=slice(0, 20), time_s=np.array([0.0]))
    (video,) = export_output(str(tmp_path / "out"), str(tmp_path / "to"), format_name)
    if format_name in ("trc", "c3d"):
        assert video.is_incomplete
        assert "no scale in metres" in video.notes[0]
    else:
        assert video.files


def test_each_format_gives_the_same_bytes_again(tmp_path: Path):
    publish_motion(tmp_path / "out")
    for format_name in ("coco", "trc", "mot", "csv", "ndjson", "c3d"):
        first = [path.read_bytes() for path in export(tmp_path, format_name)]
        assert [path.read_bytes() for path in export(tmp_path, format_name)] == first
