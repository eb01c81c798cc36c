import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.factories import publish_record
from support.upkeep_factories import EARLIER_VIDEOS, publish, publish_earlier, with_version

from posebatch.core.errors import NewerOutputError
from posebatch.core.records import PublishedObject, VideoRecord
from posebatch.dataset import layout
from posebatch.dataset.layout import record_key
from posebatch.dataset.publication import publish_failure, read_record
from posebatch.dataset.tables import schemas
from posebatch.dataset.verify import Verdict, count_images, verify
from posebatch.storage.local import LocalStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three videos: persons in every frame, persons in none, and one that failed."""
    out = tmp_path / "out"
    publish(out, "dt=1/a.mp4")
    publish(out, "b.mp4", persons=0)
    failed = VideoRecord("/in/c.mp4", "etag-1", 10, 1.5, "failed", "f", "run-1", "0", "damaged", "no frame")
    publish_failure(LocalStore(out), "c.mp4", failed)
    return out


# --- clean ---------------------------------------------------------------------------------------------------------


def test_verify_reports_an_empty_output(tmp_path: Path):
    store = LocalStore(tmp_path)
    (problem,) = verify(store).problems
    assert verify(store) == Verdict(0, 0, 0, 0, (problem,))
    assert "no commit record below videos/" in problem


def test_verify_accepts_a_correct_dataset(root: Path):
    assert verify(LocalStore(root)) == Verdict(videos=3, failed=1, frames=8, persons=8, problems=())


@pytest.mark.parametrize("chosen", [{"stride": 3}, {"fps": 5}])
def test_verify_accepts_sampled_frames(tmp_path: Path, chosen):
    publish(tmp_path, "a.mp4", **chosen)
    assert verify(LocalStore(tmp_path)) == Verdict(1, 0, 4, 8, ())


def test_verify_ignores_internal_and_foreign_files(root: Path):
    LocalStore(root).put("_state/staging/x/0-1.arrow", b"half")
    LocalStore(root).put("runs/run-1/videos.parquet", b"half")
    LocalStore(root).put("notes.txt", b"mine")
    assert verify(LocalStore(root)).problems == ()


# --- tampered ------------------------------------------------------------------------------------------------------

A_POSES, A_FRAMES, A_RECORD = "poses/dt=1/a.mp4.parquet", "frames/dt=1/a.mp4.parquet", "videos/dt=1/a.mp4.parquet"


def rewrite(store: LocalStore, kind: str, change: Callable[[pa.Table], pa.Table], rows: bool = False) -> None:
    """Change a table of video a, and set the size (and rows) in its record, without a checksum.

    Only a check of the table's content can find the change.
    """
    record = read_record(store, "dt=1/a.mp4")
    assert record is not None
    (published,) = (published for published in record.objects if published.kind == kind)
    table = change(pq.read_table(io.BytesIO(store.read(published.key))))
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    size = store.put(published.key, sink).size_bytes
    renewed = replace(published, size_bytes=size, rows=table.num_rows if rows else published.rows, sha256=None)
    objects = tuple(renewed if published.kind == kind else published for published in record.objects)
    counts = {"frames": "frames_processed", "poses": "persons"}
    totals = {counts[kind]: table.num_rows} if rows else {}
    publish_record(store, "dt=1/a.mp4", replace(record, objects=objects, **totals))


def drop(row: int) -> Callable[[pa.Table], pa.Table]:
    return lambda table: pa.concat_tables([table.slice(0, row), table.slice(row + 1)])


def double(row: int) -> Callable[[pa.Table], pa.Table]:
    return lambda table: pa.concat_tables([table.slice(0, row + 1), table.slice(row)])


def swap(table: pa.Table) -> pa.Table:
    return table.take([1, 0, *range(2, table.num_rows)])


def cast_time(table: pa.Table) -> pa.Table:
    column = table.schema.get_field_index("time_s")
    return table.set_column(column, "time_s", table["time_s"].cast(pa.float32()))


def append_bytes(store: LocalStore, key: str) -> None:
    store.put(key, store.read(key) + b" ")


def damage(store: LocalStore, key: str) -> None:
    content = store.read(key)
    store.put(key, content[:4] + bytes(len(content) - 8) + content[-4:])


def renewed_record(store: LocalStore, **changes) -> None:
    record = read_record(store, "dt=1/a.mp4")
    assert record is not None
    publish_record(store, "dt=1/a.mp4", replace(record, **changes))


def without(kind: str) -> Callable[[LocalStore], None]:
    def tamper(store: LocalStore) -> None:
        record = read_record(store, "dt=1/a.mp4")
        assert record is not None
        store.delete(f"{kind}/dt=1/a.mp4.parquet")
        renewed_record(store, objects=tuple(published for published in record.objects if published.kind != kind))

    return tamper


def vouch_for_nothing_there(store: LocalStore) -> None:
    record = read_record(store, "dt=1/a.mp4")
    assert record is not None
    gif = PublishedObject("preview", "previews/dt=1/a.mp4.gif", 4, 99, "f")
    renewed_record(store, objects=(*record.objects, gif))


def other_schema(store: LocalStore) -> None:
    rewrite(store, "frames", lambda table: table.append_column("extra", table["pts"]))


TAMPERINGS = [
    pytest.param(lambda store: store.delete(A_POSES), A_POSES, "no such file", id="poses missing"),
    pytest.param(lambda store: store.delete(A_FRAMES), A_FRAMES, "no such file", id="frames missing"),
    pytest.param(vouch_for_nothing_there, "previews/dt=1/a.mp4.gif", "no such file", id="preview missing"),
    pytest.param(without("poses"), A_RECORD, "references no poses table", id="record forgets poses"),
    pytest.param(without("frames"), A_RECORD, "references no frames table", id="record forgets frames"),
    pytest.param(lambda store: append_bytes(store, A_POSES), A_POSES, "its record says", id="poses of other size"),
    pytest.param(lambda store: append_bytes(store, A_FRAMES), A_FRAMES, "its record says", id="frames of other size"),
    pytest.param(lambda store: damage(store, A_POSES), A_POSES, "not a readable Parquet", id="poses damaged"),
    pytest.param(lambda store: damage(store, A_FRAMES), A_FRAMES, "not a readable Parquet", id="frames damaged"),
    pytest.param(
        lambda store: rewrite(store, "poses", drop(3)), A_POSES, "7 rows, its record says 8", id="person dropped"
    ),
    pytest.param(
        lambda store: rewrite(store, "poses", double(3)), A_POSES, "9 rows, its record says 8", id="person doubled"
    ),
    pytest.param(
        lambda store: rewrite(store, "frames", drop(1)), A_FRAMES, "3 rows, its record says 4", id="frame dropped"
    ),
    pytest.param(
        lambda store: rewrite(store, "frames", double(1)), A_FRAMES, "5 rows, its record says 4", id="frame doubled"
    ),
    pytest.param(
        lambda store: rewrite(store, "poses", drop(3), rows=True),
        A_POSES,
        "not those that the frames table counts",
        id="person dropped, record agrees",
    ),
    pytest.param(
        lambda store: rewrite(store, "poses", double(3), rows=True),
        A_POSES,
        "not those that the frames table counts",
        id="person doubled, record agrees",
    ),
    pytest.param(
        lambda store: rewrite(store, "poses", swap), A_POSES, "person does not count 0, 1", id="persons swapped"
    ),
    pytest.param(
        lambda store: rewrite(store, "frames", drop(1), rows=True),
        A_FRAMES,
        "frames are missing, duplicated or out of order",
        id="frame dropped, record agrees",
    ),
    pytest.param(
        lambda store: rewrite(store, "frames", drop(3), rows=True),
        A_POSES,
        "not those that the frames table counts",
        id="last frame dropped, record agrees",
    ),
    pytest.param(
        lambda store: rewrite(store, "frames", double(1), rows=True),
        A_FRAMES,
        "frames are missing, duplicated or out of order",
        id="frame doubled, record agrees",
    ),
    pytest.param(
        lambda store: rewrite(store, "frames", swap),
        A_FRAMES,
        "frames are missing, duplicated",
        id="frames out of order",
    ),
    pytest.param(
        lambda store: rewrite(store, "frames", cast_time), A_FRAMES, "its columns are not those", id="other type"
    ),
    pytest.param(other_schema, A_FRAMES, "its columns are not those", id="a column more"),
    pytest.param(
        lambda store: rewrite(store, "poses", lambda table: table.drop_columns(["nose_x"])),
        A_POSES,
        "its columns are not those",
        id="a column less",
    ),
    pytest.param(
        lambda store: renewed_record(store, persons=7), A_POSES, "8 rows in one place and 7", id="record contradicts"
    ),
    pytest.param(lambda store: store.put(A_RECORD, b"half"), A_RECORD, "cannot be read", id="record unreadable"),
    pytest.param(lambda store: store.put(A_RECORD, b""), A_RECORD, "cannot be read", id="record empty"),
    pytest.param(
        lambda store: store.put(A_RECORD, store.read(A_FRAMES)),
        A_RECORD,
        "cannot be read",
        id="record is no record",
    ),
    pytest.param(lambda store: store.delete(A_RECORD), A_POSES, "no commit record references it", id="record missing"),
    pytest.param(
        lambda store: store.put("poses/z.mp4.parquet", b"x"), "poses/z.mp4.parquet", "no commit record", id="orphan"
    ),
    pytest.param(
        lambda store: store.put("previews/c.mp4.gif", b"x"), "previews/c.mp4.gif", "no commit record", id="orphan GIF"
    ),
    pytest.param(
        lambda store: store.put(record_key("copy.mp4"), store.read(A_RECORD)),
        "videos/copy.mp4.parquet",
        "references poses/dt=1/a.mp4.parquet, which belongs to another video",
        id="record doubled",
    ),
]


@pytest.mark.parametrize(("tamper", "key", "problem"), TAMPERINGS)
def test_verify_finds_tampering(root: Path, tamper: Callable[[LocalStore], None], key: str, problem: str):
    store = LocalStore(root)
    tamper(store)
    problems = verify(store).problems
    assert any(text.startswith(f"{key}: ") and problem in text for text in problems), problems
    assert set(problems) == set(verify(store, deep=True).problems), "the deep check finds the same"
    of_other_videos = [text for text in problems if "dt=1/a.mp4" not in text and not text.startswith(key)]
    assert not of_other_videos, "the other videos are clean"


def test_verify_reports_every_problem(root: Path):
    store = LocalStore(root)
    store.delete(A_POSES)
    store.put("videos/b.mp4.parquet", b"half")
    store.put("frames/z.parquet", b"x")
    named = {problem.split(": ")[0] for problem in verify(store).problems}
    assert named == {
        A_POSES,
        "videos/b.mp4.parquet",
        "poses/b.mp4.parquet",
        "frames/b.mp4.parquet",
        "tracks/b.mp4.parquet",
        "motion/b.mp4.parquet",
        "frames/z.parquet",
    }


# --- every byte ----------------------------------------------------------------------------------------------------


@pytest.fixture
def full(root: Path) -> LocalStore:
    """The same dataset with previews: a GIF of four frames."""
    for name, persons in (("dt=1/a.mp4", 2), ("b.mp4", 0)):
        publish(root, name, persons, preview="gif")
    return LocalStore(root)


def size_of(store: LocalStore) -> int:
    return sum(stored.size_bytes for folder in layout.data_folders() for stored in store.list(f"{folder}/"))


@pytest.mark.parametrize("chosen", [{}, {"stride": 3}, {"fps": 5}])
def test_verify_deep_accepts_a_correct_dataset(full: LocalStore, chosen):
    publish(full.root, "dt=1/a.mp4", preview="gif", **chosen)
    plain = Verdict(videos=3, failed=1, frames=8, persons=8)
    assert verify(full) == plain
    assert verify(full, deep=True) == replace(plain, bytes_read=size_of(full))


def test_verify_deep_reports_an_empty_output(tmp_path: Path):
    assert verify(LocalStore(tmp_path), deep=True) == verify(LocalStore(tmp_path))


def test_verify_reports_progress_after_each_video(full: LocalStore):
    verdicts: list[Verdict] = []
    verdict = verify(full, deep=True, on_progress=verdicts.append)
    assert [progress.videos for progress in verdicts] == [1, 2, 3]
    assert verdicts[-1] == verdict


A_PREVIEW = "previews/dt=1/a.mp4.gif"


def with_changed_bytes(content: bytes, bits: int, count: int = 20) -> Iterator[bytes]:
    """Copies with one changed byte each, at places all over the content."""
    for place in range(0, len(content), max(1, len(content) // count)):
        changed = bytearray(content)
        changed[place] ^= bits
        yield bytes(changed)


@pytest.mark.parametrize("key", [A_POSES, A_FRAMES, A_PREVIEW])
def test_verify_deep_finds_any_changed_byte(full: LocalStore, key: str):
    """Most bytes are not in the columns that plain `verify` reads."""
    found_by_deep_alone = 0
    for changed in with_changed_bytes(full.read(key), 1):
        full.put(key, changed)
        found_by_deep_alone += not verify(full).problems
        problems = verify(full, deep=True).problems
        assert any(problem.startswith(f"{key}: ") for problem in problems), problems
        assert all("dt=1/a.mp4" in problem for problem in problems), problems
    assert found_by_deep_alone, "otherwise this test proves nothing about the deep check"


def forget_checksums(store: LocalStore) -> None:
    record = read_record(store, "dt=1/a.mp4")
    assert record is not None
    renewed_record(store, objects=tuple(replace(published, sha256=None) for published in record.objects))


@pytest.mark.slow
@pytest.mark.parametrize("key", [A_POSES, A_FRAMES, A_PREVIEW])
def test_verify_deep_survives_damage_without_checksum(full: LocalStore, key: str):
    """Objects of older versions have no checksum. Any damage is then a problem, never an exception."""
    forget_checksums(full)
    for changed in with_changed_bytes(full.read(key), 0xFF, 60):
        full.put(key, changed)
        assert all("dt=1/a.mp4" in problem for problem in verify(full, deep=True).problems)


def test_verify_deep_counts_objects_without_checksum(full: LocalStore):
    forget_checksums(full)
    verdict = verify(full, deep=True)
    assert (verdict.problems, verdict.without_checksum) == ((), 5)
    assert verify(full).without_checksum == 0


def column(name: str, change: Callable[[np.ndarray], Any]) -> Callable[[pa.Table], pa.Table]:
    """A function that changes one column of a table."""

    def changed(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        values = change(np.array(table[name].to_pylist(), dtype=None if table.num_rows else np.float32))
        return table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))

    return changed


def at(place: int, value: Any) -> Callable[[np.ndarray], Any]:
    def changed(values: np.ndarray) -> list[Any]:
        return [value if i == place else old_value for i, old_value in enumerate(values.tolist())]

    return changed


def described(name: str, value: str | None) -> Callable[[pa.Table], pa.Table]:
    """A function that changes one value in the metadata of a table."""

    def changed(table: pa.Table) -> pa.Table:
        metadata = {**table.schema.metadata, f"posebatch.{name}".encode(): (value or "").encode()}
        if value is None:
            del metadata[f"posebatch.{name}".encode()]
        return table.replace_schema_metadata(metadata)

    return changed


WRONG_VALUES = [
    pytest.param("poses", column("nose_x", at(3, np.nan)), "nose_x is no finite number", id="no number"),
    pytest.param("poses", column("bbox_y2", at(3, np.inf)), "bbox_y2 is no finite number", id="infinite"),
    pytest.param("poses", column("left_hip_y", at(0, None)), "left_hip_y is null in some rows", id="null"),
    pytest.param("poses", column("bbox_score", at(0, 1.01)), "bbox_score is outside 0 to 1", id="box's score"),
    pytest.param("poses", column("nose_score", at(1, 1.6)), "nose_score is outside -0.5 to 1.5", id="score above"),
    pytest.param("poses", column("nose_score", at(1, -0.6)), "nose_score is outside", id="score below"),
    pytest.param("poses", column("pose_score", at(1, -0.1)), "pose_score is outside", id="pose's score"),
    pytest.param("poses", column("pose_score", lambda v: v[::-1]), "persons are not ranked", id="ranks"),
    pytest.param("poses", column("bbox_x1", at(2, 99.0)), "boxes end before they begin", id="box from right to left"),
    pytest.param("poses", column("bbox_y1", at(2, 99.0)), "boxes end before they begin", id="box upside down"),
    pytest.param("poses", column("time_s", at(2, 0.5)), "time_s is not pts", id="time of a person"),
    pytest.param("poses", column("video", at(0, "/in/b.mp4")), "rows of another video: /in/b.mp4", id="video"),
    pytest.param(
        "poses",
        lambda table: column("time_s", lambda v: v + 1)(column("pts", lambda v: v + 100)(table)),
        "pts is not that of the frames table",
        id="pts of persons",
    ),
    pytest.param("frames", column("time_s", at(2, 0.5)), "time_s is not pts", id="time of a frame"),
    pytest.param("frames", column("video", at(0, None)), "video is null in some rows", id="video null"),
    pytest.param("frames", column("status", at(0, "fine")), "status is none of ok, corrupt, missing", id="status"),
    pytest.param("frames", column("status", at(0, "corrupt")), "holds damaged frames", id="damage not in the record"),
    pytest.param(
        "frames",
        column("status", at(0, "missing")),
        "above 0 in a frame that could not",
        id="persons unseen",
    ),
    pytest.param("poses", described("video", "/in/b.mp4"), "'/in/b.mp4' as posebatch.video", id="metadata: video"),
    pytest.param("poses", described("etag", "x"), "'x' as posebatch.etag", id="metadata: etag"),
    pytest.param("poses", described("settings_fingerprint", "f"), "'f' as posebatch.settings", id="other settings"),
    pytest.param("frames", described("models", "{}"), "'{}' as posebatch.models", id="other models"),
    pytest.param("frames", described("time_base", "1/25"), "'1/25' as posebatch.time_base", id="other time base"),
    pytest.param("frames", described("frame_width", None), "'' as posebatch.frame_width", id="no width"),
    pytest.param("frames", described("keypoint_names", json.dumps(["nose"])), "as posebatch.keypoint", id="joints"),
    pytest.param("frames", described("schema_version", None), "states no schema version", id="no version"),
    pytest.param("frames", described("schema_version", "0"), "states no schema version", id="version 0"),
]


@pytest.mark.parametrize(("kind", "change", "problem"), WRONG_VALUES)
def test_verify_deep_finds_impossible_values(full: LocalStore, kind: str, change, problem: str):
    """Size and counts agree, and there is no checksum."""
    rewrite(full, kind, change)
    problems = verify(full, deep=True).problems
    assert any(text.startswith(f"{kind}/dt=1/a.mp4.parquet: ") and problem in text for text in problems), problems
    assert all("dt=1/a.mp4" in text for text in problems)


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("num_persons", at(0, None), "num_persons is null in some rows"),
        ("num_persons", at(0, -1), "not those that the frames table counts"),
        ("num_persons", at(0, 2**31 - 1), "not those that the frames table counts"),
    ],
)
def test_verify_survives_impossible_counts(root: Path, name: str, change, problem: str):
    store = LocalStore(root)
    rewrite(store, "frames", column(name, change))
    assert any(problem in text for text in verify(store).problems)


@pytest.mark.parametrize("stated", ["", "{", "[]", "{}", '{"stride": null, "fps": null}'])
def test_verify_reports_missing_sampling_metadata(root: Path, stated: str):
    store = LocalStore(root)
    rewrite(store, "frames", described("sampling", stated))
    assert any("does not state which frames" in text for text in verify(store).problems)


def test_verify_deep_finds_another_fingerprint(full: LocalStore):
    renewed_record(full, settings_fingerprint="other")
    problems = verify(full, deep=True).problems
    assert [problem.split(": ")[0] for problem in problems] == [A_POSES, A_FRAMES]
    assert all("one fingerprint for it and another for the video" in problem for problem in problems)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"", "not a readable GIF", id="empty"),
        pytest.param(b"half", "not a readable GIF", id="garbage"),
        pytest.param(b"GIF89a", "not a readable GIF", id="cut off"),
        pytest.param(b"GIF89a" + b"\xff" * 4 + bytes(3) + b"," + bytes(9) + b";", "not a readable GIF", id="vast"),
    ],
)
def test_verify_deep_finds_an_unreadable_preview(full: LocalStore, content: bytes, problem: str):
    record = read_record(full, "dt=1/a.mp4")
    assert record is not None
    full.put(A_PREVIEW, content)
    preview = replace(record.objects[-1], size_bytes=len(content), sha256=None)
    renewed_record(full, objects=(*record.objects[:-1], preview))
    (found_problem,) = verify(full, deep=True).problems
    assert found_problem.startswith(f"{A_PREVIEW}: {problem}")
    assert verify(full).problems == ()


def test_verify_deep_counts_the_frames_of_a_preview(full: LocalStore):
    record = read_record(full, "dt=1/a.mp4")
    assert record is not None
    assert count_images(full.read(A_PREVIEW), "GIF") == record.objects[-1].rows == 4
    renewed_record(full, objects=(*record.objects[:-1], replace(record.objects[-1], rows=5)))
    assert verify(full, deep=True).problems == (f"{A_PREVIEW}: 4 frames, its record says 5",)


# --- other versions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", EARLIER_VIDEOS.values(), ids=EARLIER_VIDEOS)
def test_verify_accepts_earlier_versions(full: LocalStore, columns):
    publish_earlier(Path(full.root), "old.mp4", columns, preview="gif")
    assert verify(full) == Verdict(4, 1, 12, 16)
    assert verify(full, deep=True) == Verdict(4, 1, 12, 16, (), size_of(full), without_checksum=3)


@pytest.mark.parametrize("deep", [False, True])
def test_verify_refuses_a_later_version(full: LocalStore, deep: bool):
    full.put(A_RECORD, with_version(full.read(A_RECORD), schemas.SCHEMA_VERSION + 1))
    with pytest.raises(NewerOutputError, match=rf"{A_RECORD}: written by a newer posebatch, as schema version 5"):
        verify(full, deep)


def test_verify_reports_a_later_table_under_an_older_record(root: Path):
    """A newer posebatch was killed before it wrote the record."""
    store = LocalStore(root)
    rewrite(store, "poses", described("schema_version", str(schemas.SCHEMA_VERSION + 1)))
    (problem,) = verify(store).problems
    assert problem.startswith(f"{A_POSES}: written by a newer posebatch, as schema version 5; this is posebatch ")
