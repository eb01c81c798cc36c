"""Keys in an output, and the registry of artifacts: a new kind of file is one more line there."""

import io
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.upkeep_factories import INFO, publish, source

from posebatch.core.records import PublishedObject, VideoRecord
from posebatch.dataset import layout
from posebatch.dataset.gc import age_limit, unreferenced
from posebatch.dataset.layout import ARTIFACTS, GUARDED_SUFFIXES, Artifact, artifact_of_kind, output_path_of, record_key
from posebatch.dataset.output_paths import encode_output_path
from posebatch.dataset.publication import Publication, publish_failure, read_record
from posebatch.dataset.tables.parquet import write_parquet
from posebatch.dataset.tables.rows import DATA_TABLES, provenance
from posebatch.dataset.verify import verify
from posebatch.storage.local import LocalStore

CLIP = Artifact("clip", "clips", "mp4", "preview")
STRIP = Artifact("strip", "strips", "webp", "preview", image_format="WEBP")
SPEED_SCHEMA = pa.schema([pa.field("frame_index", pa.int64()), pa.field("metres_per_second", pa.float32())])
SPEEDS = Artifact("speeds", "speeds", "parquet", "data", schemas=(SPEED_SCHEMA,))
NEW = (CLIP, STRIP, SPEEDS)


@pytest.mark.parametrize(
    ("kind", "path", "key"),
    [
        ("poses", "a", "poses/a.parquet"),
        ("frames", "dt=1/a.mp4", "frames/dt=1/a.mp4.parquet"),
        ("preview", "dt=1/a.mp4", "previews/dt=1/a.mp4.gif"),
    ],
)
def test_keys_of_artifacts_and_records(kind: str, path: str, key: str):
    artifact = artifact_of_kind(kind)
    assert artifact is not None
    assert artifact.key(path) == key
    assert output_path_of(key) == path
    assert record_key(path) == f"videos/{path}.parquet"


def test_registry_is_unambiguous():
    for names in ([artifact.kind for artifact in ARTIFACTS], [artifact.folder for artifact in ARTIFACTS]):
        assert len(set(names)) == len(names)
    assert not set(layout.data_folders()) & {"videos", "runs", "_state"}
    assert all("." not in artifact.suffix for artifact in ARTIFACTS)


def test_every_data_table_has_the_schema_of_its_artifact():
    for kind, (_, schema) in DATA_TABLES.items():
        artifact = artifact_of_kind(kind)
        assert artifact is not None
        assert schema is artifact.schemas[0]


@pytest.mark.parametrize("suffix", GUARDED_SUFFIXES)
def test_guarded_suffixes_are_escaped_in_folder_names(suffix: str):
    assert encode_output_path(f"a.{suffix}/b.mp4") == f"a%2E{suffix}/b.mp4"


names = st.sampled_from(["a", "a.mp4", "A.MP4", ".mp4", "%2Emp4", "a%2Emp4", "b.mp4.mp4", "x.gif", "_x", "", "~"])


@given(st.lists(st.lists(names, min_size=1, max_size=4).map("/".join), min_size=2, max_size=6, unique=True))
def test_files_of_a_new_kind_never_collide_with_folders(paths: list[str]):
    """On a disk, ``clips/a.mp4`` cannot be both the clip of ``a`` and the folder of the clips of ``a.mp4/``."""
    encoded = [encode_output_path(path) for path in paths]
    keys = [CLIP.key(path) for path in encoded]
    assert [CLIP.output_path(key) for key in keys] == encoded
    folders = {parent.casefold() for key in keys for parent in map(str, Path(key).parents)}
    assert not folders & {key.casefold() for key in keys}


# --- a new kind ----------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """A published video in an output whose registry has three lines more: a film, pictures and a table."""
    monkeypatch.setattr(layout, "ARTIFACTS", (*ARTIFACTS, *NEW))
    publish(tmp_path, "a.mp4")
    return LocalStore(tmp_path)


def table(rows: int, record: VideoRecord) -> bytes:
    sink = io.BytesIO()
    models = {"detector": record.detector, "pose": record.pose}
    origin = provenance(source("a.mp4"), INFO, {}, models, record.settings_fingerprint)
    described = {**origin, **{key.decode(): value for key, value in layout.POSES.schemas[0].metadata.items()}}
    values = {"frame_index": range(rows), "metres_per_second": [1.0] * rows}
    write_parquet(sink, SPEED_SCHEMA, [pa.table(values, schema=SPEED_SCHEMA)], described)
    return sink.getvalue()


def pictures(count: int) -> bytes:
    sink = io.BytesIO()
    first, *others = (Image.new("RGB", (8, 8), (60 * i, 0, 0)) for i in range(count))
    first.save(sink, "WEBP", save_all=True, append_images=others, duration=100)
    return sink.getvalue()


def attach(store: LocalStore) -> VideoRecord:
    """Publish one artifact of each new kind beside the tables."""
    record = read_record(store, "a.mp4")
    assert record is not None
    publication = Publication.begin(store, "a.mp4")
    objects = list(record.objects)
    for artifact, content, rows, fingerprint in (
        (CLIP, b"a film", 4, "p"),
        (STRIP, pictures(3), 3, "p"),
        (SPEEDS, table(4, record), 4, record.settings_fingerprint),
    ):
        put = publication.put(artifact, content)
        objects.append(PublishedObject(artifact.kind, put.key, rows, put.size_bytes, fingerprint))
    return publication.commit(replace(record, objects=tuple(objects))).record


def keys_of_new_kinds(store: LocalStore) -> set[str]:
    return {stored.key for artifact in NEW for stored in store.list(f"{artifact.folder}/")}


def test_verify_accepts_new_kinds(store: LocalStore):
    record = attach(store)
    assert verify(store, deep=True).problems == ()
    assert read_record(store, "a.mp4") == record
    assert len(keys_of_new_kinds(store)) == 3


@pytest.mark.parametrize(
    ("key", "content", "problem"),
    [
        pytest.param("clips/a.mp4.mp4", b"shorter", "7 bytes, its record says 6", id="size"),
        pytest.param("strips/a.mp4.webp", pictures(2), "2 frames, its record says 3", id="pictures"),
        pytest.param("strips/a.mp4.webp", b"none", "not a readable WEBP", id="no pictures"),
        pytest.param("speeds/a.mp4.parquet", 3, "3 rows, its record says 4", id="rows"),
        pytest.param("speeds/a.mp4.parquet", b"none", "not a readable Parquet file", id="no table"),
    ],
)
def test_verify_checks_new_kinds(store: LocalStore, key: str, content: bytes | int, problem: str):
    record = attach(store)
    stored = store.put(key, table(content, record) if isinstance(content, int) else content)
    if not problem.startswith("7 bytes"):
        objects = [replace(o, size_bytes=stored.size_bytes) if o.key == key else o for o in record.objects]
        Publication.begin(store, "a.mp4").commit(replace(record, objects=tuple(objects)))
    (found_problem,) = verify(store, deep=True).problems
    assert found_problem.startswith(f"{key}: {problem}")


def test_verify_reports_a_kind_that_the_version_does_not_know(store: LocalStore, monkeypatch: pytest.MonkeyPatch):
    attach(store)
    monkeypatch.setattr(layout, "ARTIFACTS", ARTIFACTS)
    problems = verify(store).problems
    assert len(problems) == 3
    assert all("which this version does not know" in problem for problem in problems)


def test_gc_finds_unreferenced_objects_of_new_kinds(store: LocalStore):
    attach(store)
    limit = age_limit(store, 1)
    limit = replace(limit, now=limit.now + 9 * 86_400)
    assert list(unreferenced(store, limit)) == []
    store.put("clips/gone.mp4.mp4", b"of a killed run")
    store.put("clips/notes.txt", b"not ours")
    assert [leftover.key for leftover in unreferenced(store, limit)] == ["clips/gone.mp4.mp4"]


@pytest.mark.parametrize("again", ["failure", "without them"])
def test_publication_removes_new_kinds_that_the_record_does_not_list(store: LocalStore, again: str):
    record = attach(store)
    if again == "failure":
        publish_failure(store, "a.mp4", replace(record, status="failed", objects=()))
    else:
        publish(store.root, "a.mp4")
    assert keys_of_new_kinds(store) == set()
    assert verify(store, deep=True).problems == ()
