import io
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factories import staged_file

from posebatch.commits import Work, publish_failure, publish_record, read_record, record_key
from posebatch.finalize import FinalizeJob, finalize_video
from posebatch.plan import RunContext
from posebatch.settings import settings_from
from posebatch.storage import LocalStore
from posebatch.types import (
    DecodeReport,
    FramePoses,
    FrameRecord,
    PublishedObject,
    Segment,
    SegmentReport,
    SourceVideo,
    VideoInfo,
    VideoPlan,
    VideoRecord,
)
from posebatch.verify import Verdict, verify

INFO = VideoInfo("h264", "yuv420p", 64, 48, 0, Fraction(1, 100), 0, 1.0, 10.0, 4)
PLAN = VideoPlan(INFO, (Segment(0, 0, 2, None, 20), Segment(1, 2, 2, 20, None)))


def source(name: str) -> SourceVideo:
    return SourceVideo(f"/in/{name}", name, "etag-1", 10, 1.5)


def publish(root: Path, name: str, persons: int = 2, **chosen) -> VideoRecord:
    """A video of four frames in two segments, through the real end of a video."""
    context = RunContext("run-1", settings_from(chosen), str(root), "d@1", "p@1")
    work = Work.of(LocalStore(root), source(name), context.data_fingerprint)
    rng = np.random.default_rng(len(name))
    stride = context.settings.sampling.stride
    for segment in PLAN.segments:
        frames = [
            FramePoses(
                FrameRecord(i * stride, 10 * i, False, "ok"),
                *(rng.random((persons, *shape)).astype(np.float32) for shape in ((4,), (), (), (17, 3))),
            )
            for i in range(segment.first_packet, segment.first_packet + 2)
        ]
        work.stage(segment, staged_file(frames, SegmentReport(DecodeReport(2))))
    return finalize_video(FinalizeJob(source(name), PLAN, 1), context).record


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


def test_an_empty_output_is_no_dataset(tmp_path: Path):
    store = LocalStore(tmp_path)
    (problem,) = verify(store).problems
    assert verify(store) == Verdict(0, 0, 0, 0, (problem,))
    assert "no commit record below videos/" in problem


def test_a_clean_dataset(root: Path):
    assert verify(LocalStore(root)) == Verdict(videos=3, failed=1, frames=8, persons=8, problems=())


@pytest.mark.parametrize("chosen", [{"stride": 3}, {"fps": 5}])
def test_a_clean_dataset_of_some_frames(tmp_path: Path, chosen):
    publish(tmp_path, "a.mp4", **chosen)
    assert verify(LocalStore(tmp_path)) == Verdict(1, 0, 4, 8, ())


def test_what_is_not_for_readers_is_not_looked_at(root: Path):
    LocalStore(root).put("_state/staging/x/0-1.arrow", b"half")
    LocalStore(root).put("runs/run-1/videos.parquet", b"half")
    LocalStore(root).put("notes.txt", b"mine")
    assert verify(LocalStore(root)).problems == ()


# --- tampered ------------------------------------------------------------------------------------------------------

A_POSES, A_FRAMES, A_RECORD = "poses/dt=1/a.mp4.parquet", "frames/dt=1/a.mp4.parquet", "videos/dt=1/a.mp4.parquet"


def rewrite(store: LocalStore, kind: str, change: Callable[[pa.Table], pa.Table], rows: bool = False) -> None:
    """Change a table of video a, and its record's size (and rows) too: only a look inside can tell."""
    record = read_record(store, "dt=1/a.mp4")
    assert record is not None
    (published,) = (one for one in record.objects if one.kind == kind)
    table = change(pq.read_table(io.BytesIO(store.read(published.key))))
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    size = store.put(published.key, sink).size_bytes
    renewed = replace(published, size_bytes=size, rows=table.num_rows if rows else published.rows)
    objects = tuple(renewed if one.kind == kind else one for one in record.objects)
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
        renewed_record(store, objects=tuple(one for one in record.objects if one.kind != kind))

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
    pytest.param(without("poses"), A_RECORD, "vouches for no poses table", id="record forgets poses"),
    pytest.param(without("frames"), A_RECORD, "vouches for no frames table", id="record forgets frames"),
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
        "frames are lost, doubled or out of order",
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
        "frames are lost, doubled or out of order",
        id="frame doubled, record agrees",
    ),
    pytest.param(
        lambda store: rewrite(store, "frames", swap), A_FRAMES, "frames are lost, doubled", id="frames out of order"
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
        lambda store: store.put(A_RECORD, store.read(A_FRAMES)), A_RECORD, "cannot be read", id="record no record"
    ),
    pytest.param(lambda store: store.delete(A_RECORD), A_POSES, "no commit record vouches for it", id="record missing"),
    pytest.param(
        lambda store: store.put("poses/z.mp4.parquet", b"x"), "poses/z.mp4.parquet", "no commit record", id="orphan"
    ),
    pytest.param(
        lambda store: store.put("previews/c.mp4.gif", b"x"), "previews/c.mp4.gif", "no commit record", id="orphan GIF"
    ),
    pytest.param(
        lambda store: store.put(record_key("copy.mp4"), store.read(A_RECORD)),
        "videos/copy.mp4.parquet",
        "vouches for poses/dt=1/a.mp4.parquet, which is another video's",
        id="record doubled",
    ),
]


@pytest.mark.parametrize(("tamper", "key", "problem"), TAMPERINGS)
def test_tampering_is_found(root: Path, tamper: Callable[[LocalStore], None], key: str, problem: str):
    store = LocalStore(root)
    tamper(store)
    problems = verify(store).problems
    assert any(found.startswith(f"{key}: ") and problem in found for found in problems), problems
    others = [found for found in problems if "dt=1/a.mp4" not in found and not found.startswith(key)]
    assert not others, "the other videos are clean"


def test_every_problem_is_named(root: Path):
    store = LocalStore(root)
    store.delete(A_POSES)
    store.put("videos/b.mp4.parquet", b"half")
    store.put("frames/z.parquet", b"x")
    found = {problem.split(": ")[0] for problem in verify(store).problems}
    assert found == {
        A_POSES,
        "videos/b.mp4.parquet",
        "poses/b.mp4.parquet",
        "frames/b.mp4.parquet",
        "frames/z.parquet",
    }
