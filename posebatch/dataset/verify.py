"""Prove a dataset: every promise of its commit records, against the objects themselves.

What is read, besides all commit records and a listing of the folders: plainly the size of each object, and of each
table the columns that count and order its rows; deeply every byte of every object, see `checks` for what must be there.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

from PIL import Image, ImageSequence

from posebatch.core.errors import NewerOutputError, PosebatchError, PreviewError, StorageError
from posebatch.core.records import PublishedObject, VideoRecord
from posebatch.dataset.layout import DATA_FOLDERS, data_key
from posebatch.dataset.tables.checks import check_agreement, check_frames, check_poses, check_values
from posebatch.dataset.tables.records import record_from_bytes
from posebatch.storage.store import Store

VERIFY_THREADS = 8


VERIFIED_AHEAD = 64
"""Videos whose findings may wait: so memory does not grow with the archive more than the names of its objects do."""


@dataclass(frozen=True)
class Verdict:
    """What `verify` found."""

    videos: int = 0
    """Commit records read."""
    failed: int = 0
    """Among them, of videos that failed: their records vouch for nothing."""
    frames: int = 0
    """Rows of the frames tables."""
    persons: int = 0
    """Rows of the poses tables."""
    problems: tuple[str, ...] = ()
    """Nothing here: the dataset is proven."""
    bytes_read: int = 0
    """Of objects that were read whole; plainly, none are."""
    without_checksum: int = 0
    """Objects that were read whole, but of which an older version of posebatch has noted no checksum."""


@dataclass(frozen=True)
class _Found:
    """What was found of one video."""

    record: VideoRecord | None
    problems: list[str]
    bytes_read: int = 0
    without_checksum: int = 0


def verify(store: Store, deep: bool = False, watch: Callable[[Verdict], None] | None = None) -> Verdict:
    """Check that every published object is there with the rows its record states, in the schema, with frames in order
    and without gaps or doubles, that the persons of both tables agree, and that nothing lies about without a record.

    With ``deep`` also that every byte is the one that was published, every value one that can be, all metadata those of
    the record, and that previews can be shown. ``watch`` hears how far it is, after each video. Raises
    `NewerOutputError` when a later version of posebatch has published here: its promises are not known.
    """
    verdict = Verdict()
    problems: list[str] = []
    vouched: set[str] = set()
    keys = (found.key for found in store.list("videos/") if found.key.endswith(".parquet"))
    with ThreadPoolExecutor(VERIFY_THREADS) as threads:
        while chunk := list(islice(keys, VERIFIED_AHEAD)):
            for found in threads.map(lambda key: _verify_video(store, key, deep), chunk):
                verdict = _with(verdict, found)
                problems += found.problems
                vouched.update(published.key for published in (found.record.objects if found.record else ()))
                if watch is not None:
                    watch(verdict)
    problems += _orphans(store, vouched)
    if not verdict.videos:
        problems.append(f"{store.root}: no commit record below videos/: nothing has been published here")
    return replace(verdict, problems=tuple(problems))


def _with(verdict: Verdict, found: _Found) -> Verdict:
    """The sums with one video more."""
    record = found.record
    counted = replace(
        verdict,
        videos=verdict.videos + 1,
        bytes_read=verdict.bytes_read + found.bytes_read,
        without_checksum=verdict.without_checksum + found.without_checksum,
    )
    if record is None:
        return counted
    return replace(
        counted,
        failed=counted.failed + (record.status == "failed"),
        frames=counted.frames + record.frames_processed,
        persons=counted.persons + record.persons,
    )


def _verify_video(store: Store, key: str, deep: bool) -> _Found:
    try:
        record = record_from_bytes(store.read(key))
    except NewerOutputError as error:
        raise NewerOutputError(f"{store.uri(key)}: {error}") from error
    except StorageError as error:
        return _Found(None, [f"{key}: {error}"])
    problems = list(_wrong_record(key, record))
    contents: dict[str, bytes] = {}
    for published in record.objects:
        try:
            if deep:
                contents[published.key] = store.read(published.key)
            size = len(contents[published.key]) if deep else store.head(published.key).size_bytes
            problems += _wrong_size(published, size)
        except PosebatchError as error:
            problems.append(f"{published.key}: {error}")
    try:
        problems += [] if problems else _wrong_tables(record, contents.__getitem__ if deep else store.read)
        problems += [] if problems or not deep else _wrong_contents(record, contents)
    except PosebatchError as error:
        problems.append(f"{key}: {error}")
    unproven = sum(published.sha256 is None for published in record.objects if deep)
    return _Found(record, problems, sum(map(len, contents.values())), unproven)


def _wrong_record(key: str, record: VideoRecord) -> Iterator[str]:
    """What is wrong with a commit record by itself."""
    own = {data_key(folder, key.removeprefix("videos/").removesuffix(".parquet")) for folder in DATA_FOLDERS}
    kinds = {published.kind for published in record.objects}
    for published in record.objects:
        if published.key not in own:
            yield f"{key}: vouches for {published.key}, which is another video's"
        expected = {"poses": record.persons, "frames": record.frames_processed}.get(published.kind)
        if expected is not None and published.rows != expected:
            yield f"{published.key}: its record states {published.rows} rows in one place and {expected} in another"
    if record.status != "failed":
        yield from (f"{key}: vouches for no {kind} table" for kind in ("poses", "frames") if kind not in kinds)


def _wrong_size(published: PublishedObject, size_bytes: int) -> Iterator[str]:
    if size_bytes != published.size_bytes:
        yield f"{published.key}: {size_bytes} bytes, its record says {published.size_bytes}"


def _wrong_tables(record: VideoRecord, read: Callable[[str], bytes]) -> list[str]:
    """What is wrong with the two tables of one video, by the columns that count and order their rows."""
    by_kind = {published.kind: published for published in record.objects}
    if record.status == "failed":
        return []
    frames, poses = by_kind["frames"], by_kind["poses"]
    problems, persons_by_frame = check_frames(read(frames.key), frames.rows)
    problems = [f"{frames.key}: {problem}" for problem in problems]
    return problems + [
        f"{poses.key}: {problem}" for problem in check_poses(read(poses.key), poses.rows, persons_by_frame)
    ]


def _wrong_contents(record: VideoRecord, contents: dict[str, bytes]) -> list[str]:
    """What is wrong with the objects of one video by all of their bytes, when nothing else is."""
    problems = []
    for published in record.objects:
        content = contents[published.key]
        if published.sha256 not in (None, hashlib.sha256(content).hexdigest()):
            problems.append(f"{published.key}: its bytes are not those that were published (sha256)")
            continue
        check = _wrong_preview if published.kind == "preview" else check_values
        problems += [f"{published.key}: {problem}" for problem in check(content, published, record)]
    by_kind = {published.kind: published.key for published in record.objects}
    if not problems and record.status != "failed":
        frames, poses = contents[by_kind["frames"]], contents[by_kind["poses"]]
        problems += [f"{by_kind['poses']}: {problem}" for problem in check_agreement(frames, poses)]
    return problems


def _wrong_preview(content: bytes, published: PublishedObject, record: VideoRecord) -> list[str]:
    try:
        frames = count_gif_frames(content)
    except PosebatchError as error:
        return [str(error)]
    return [] if frames == published.rows else [f"{frames} frames, its record says {published.rows}"]


def _orphans(store: Store, vouched: set[str]) -> list[str]:
    return [
        f"{found.key}: no commit record vouches for it (a run that is under way, or was killed: run again)"
        for folder in DATA_FOLDERS
        for found in store.list(f"{folder}/")
        if found.key not in vouched
    ]


def count_gif_frames(content: bytes) -> int:
    """Frames of a GIF, each of which can be decoded. Raises `PreviewError`."""
    try:
        with Image.open(io.BytesIO(content), formats=["GIF"]) as gif:
            return sum(frame.load() is not None for frame in ImageSequence.Iterator(gif))
    except (OSError, ValueError, EOFError, SyntaxError, IndexError, Image.DecompressionBombError) as error:
        # Pillow's ways to say damaged
        raise PreviewError(f"not a readable GIF: {error}") from error
