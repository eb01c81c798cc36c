"""Prove a dataset: every promise of its commit records, against the objects themselves."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from posebatch.commits import DATA_FOLDERS, data_key
from posebatch.errors import PosebatchError, StorageError
from posebatch.storage import Store
from posebatch.tables import check_frames, check_poses, record_from_bytes
from posebatch.types import PublishedObject, VideoRecord

VERIFY_THREADS = 8


@dataclass(frozen=True)
class Verdict:
    """What `verify` found."""

    videos: int
    """Commit records read."""
    failed: int
    """Among them, of videos that failed: their records vouch for nothing."""
    frames: int
    """Rows of the frames tables."""
    persons: int
    """Rows of the poses tables."""
    problems: tuple[str, ...]
    """Nothing here: the dataset is proven."""


def verify(store: Store) -> Verdict:
    """Check that every published object is there with the rows its record states, in the schema, with frames in order
    and without gaps or doubles, that the persons of both tables agree, and that nothing lies about without a record.
    """
    problems: list[str] = []
    vouched: set[str] = set()
    videos = failed = frames = persons = 0
    keys = (found.key for found in store.list("videos/") if found.key.endswith(".parquet"))
    with ThreadPoolExecutor(VERIFY_THREADS) as threads:
        for record, found in threads.map(lambda key: _verify_video(store, key), keys):
            problems += found
            videos += 1
            if record is None:
                continue
            failed += record.status == "failed"
            frames += record.frames_processed
            persons += record.persons
            vouched.update(published.key for published in record.objects)
    problems += _orphans(store, vouched)
    if not videos:
        problems.append(f"{store.root}: no commit record below videos/: nothing has been published here")
    return Verdict(videos, failed, frames, persons, tuple(problems))


def _verify_video(store: Store, key: str) -> tuple[VideoRecord | None, list[str]]:
    try:
        record = record_from_bytes(store.read(key))
    except StorageError as error:
        return None, [f"{key}: {error}"]
    own = {data_key(folder, key.removeprefix("videos/").removesuffix(".parquet")) for folder in DATA_FOLDERS}
    problems: list[str] = []
    for published in record.objects:
        if published.key not in own:
            problems.append(f"{key}: vouches for {published.key}, which is another video's")
        try:
            problems += _verify_object(store, published, record)
        except PosebatchError as error:
            problems.append(f"{published.key}: {error}")
    if record.status != "failed":
        kinds = {published.kind for published in record.objects}
        problems += [f"{key}: vouches for no {kind} table" for kind in ("poses", "frames") if kind not in kinds]
    try:
        problems += [] if problems else _verify_agreement(store, record)
    except PosebatchError as error:
        problems.append(f"{key}: {error}")
    return record, problems


def _verify_object(store: Store, published: PublishedObject, record: VideoRecord) -> Iterator[str]:
    size = store.head(published.key).size_bytes
    if size != published.size_bytes:
        yield f"{published.key}: {size} bytes, its record says {published.size_bytes}"
    expected = {"poses": record.persons, "frames": record.frames_processed}.get(published.kind)
    if expected is not None and published.rows != expected:
        yield f"{published.key}: its record states {published.rows} rows in one place and {expected} in another"


def _verify_agreement(store: Store, record: VideoRecord) -> list[str]:
    """The contents of the two tables of one video."""
    by_kind = {published.kind: published for published in record.objects}
    if record.status == "failed":
        return []
    frames, poses = by_kind["frames"], by_kind["poses"]
    problems, persons_by_frame = check_frames(store.read(frames.key), frames.rows)
    problems = [f"{frames.key}: {problem}" for problem in problems]
    return problems + [
        f"{poses.key}: {problem}" for problem in check_poses(store.read(poses.key), poses.rows, persons_by_frame)
    ]


def _orphans(store: Store, vouched: set[str]) -> list[str]:
    return [
        f"{found.key}: no commit record vouches for it (a run that is under way, or was killed: run again)"
        for folder in DATA_FOLDERS
        for found in store.list(f"{folder}/")
        if found.key not in vouched
    ]
