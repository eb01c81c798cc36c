"""From what a user names (files, folders, globs, S3 keys and prefixes) to the videos of the archive.

Also decides where each video's results go: its *output path* mirrors the archive, so that people find a result where
they expect it, and is safe as a key on every store and for every Parquet reader.
"""

from __future__ import annotations

import marshal
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from posebatch.core.errors import InputError, ObjectNotFoundError
from posebatch.core.fingerprints import digest
from posebatch.core.settings import SelectionSettings
from posebatch.core.videos import SourceVideo
from posebatch.dataset.output_paths import encode_output_path
from posebatch.run.planning.globs import APPLE_DOUBLE, glob_regex, is_glob, matches, spells_extension, split_glob
from posebatch.storage.addresses import is_s3, local_path, split_s3
from posebatch.storage.local import LocalStore
from posebatch.storage.open import open_store
from posebatch.storage.s3 import S3Store
from posebatch.storage.store import Store, StoredObject

VIDEO_EXTENSIONS: Final = frozenset(
    {".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg"}
    | {".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"}
)
"""What counts as a video in a folder or prefix. A file that is named outright counts whatever its name."""


@dataclass(frozen=True)
class Input:
    """One thing a user named: a root to list, and which of its keys are meant."""

    named: str
    """As it was given."""
    store: Store
    prefix: str
    """Keys below the store's root start with this."""
    pattern: re.Pattern[str] | None
    """Keys must match it, when given."""
    any_name: bool
    """Whether files count that are not named like a video."""
    output_prefix: str
    """What stands before a key in its output path: the bucket, for S3."""

    def objects(self) -> Iterator[StoredObject]:
        """The objects that are meant, in the listing's order."""
        for found in self.store.list(self.prefix):
            if self.pattern is None or self.pattern.fullmatch(found.key):
                yield found


VIDEOS_PACKED_TOGETHER: Final = 1000
"""Of a `VideoList`: enough that names of one folder are packed well."""


class VideoList:
    """Videos in the order in which they were found, to be gone through more than once without another listing.

    Packed in memory, about 40 bytes each: less than what must be known of their results, and no file to clean up.
    """

    def __init__(self) -> None:
        self._packed: list[bytes] = []
        self._loose: list[tuple[str, str, str, int, float]] = []
        self.size_bytes = 0
        """Of all videos together."""

    def add(self, video: SourceVideo) -> None:
        """Take one more."""
        self._loose.append((video.uri, video.output_path, video.etag, video.size_bytes, video.last_modified))
        self.size_bytes += video.size_bytes
        if len(self._loose) == VIDEOS_PACKED_TOGETHER:
            self._packed.append(zlib.compress(marshal.dumps(self._loose), level=1))
            self._loose = []

    def __len__(self) -> int:
        return len(self._packed) * VIDEOS_PACKED_TOGETHER + len(self._loose)

    def __iter__(self) -> Iterator[SourceVideo]:
        for packed in self._packed:
            yield from (SourceVideo(*row) for row in marshal.loads(zlib.decompress(packed)))
        yield from (SourceVideo(*row) for row in self._loose)


@dataclass(frozen=True)
class InputListing:
    """What the inputs hold, found before any work begins."""

    videos: VideoList
    passed_over: int = 0
    """Files that are not named like a video."""


def parse_inputs(named: Sequence[str], endpoint_url: str | None = None) -> list[Input]:
    """The inputs that a user named. Raises `InputError` when there is none, or one does not exist."""
    if not named:
        raise InputError("no input: name a video, a folder, a glob, s3://bucket/prefix, or use --inputs-from FILE")
    return [_parse_s3(one, endpoint_url) if is_s3(one) else _parse_local(one) for one in named]


def read_input_list(path: str) -> list[str]:
    """The inputs in a file, one a line; empty lines and lines that start with # do not count."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--inputs-from {path}: cannot be read: {error}") from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def list_videos(inputs: Sequence[Input], selection: SelectionSettings) -> Iterator[SourceVideo]:
    """The videos of the inputs, each once, in the order of the inputs and their listings.

    Raises `InputError` when two different videos map to one output path.
    """
    return (video for video in _each_once(inputs, selection) if video is not None)


def _each_once(inputs: Sequence[Input], selection: SelectionSettings) -> Iterator[SourceVideo | None]:
    """Each video once, and None for each file that is no video."""
    if len(inputs) == 1:  # its keys differ, so their output paths do
        yield from _found(inputs, selection)
        return
    owners: dict[bytes, bytes] = {}  # output path -> address, as digests: 200 bytes for each video
    for video in _found(inputs, selection):
        if video is None:
            yield None
            continue
        uri = digest(video.uri)
        owner = owners.setdefault(digest(video.output_path), uri)
        if owner is uri:
            yield video
        elif owner != uri:
            raise _collision(inputs, selection, video)


def _found(inputs: Sequence[Input], selection: SelectionSettings) -> Iterator[SourceVideo | None]:
    for one in inputs:
        for found in one.objects():
            yield _source_video(one, found) if _wanted(one, found, selection) else None


def _collision(inputs: Sequence[Input], selection: SelectionSettings, video: SourceVideo) -> InputError:
    """Lists again, up to the video that came first: no address is kept for the case of an error."""
    others = (other for other in _found(inputs, selection) if other and other.output_path == video.output_path)
    owner = next((other.uri for other in others), "another video")
    return InputError(
        f"{owner} and {video.uri} would both be published as {video.output_path!r}: "
        "name a folder above both, or give each an --output of its own"
    )


def relist(video: SourceVideo, endpoint_url: str | None) -> SourceVideo:
    """The video as its object is now. Raises `ObjectNotFoundError` when it has gone."""
    root, key = video.uri.rsplit("/", 1) if not is_s3(video.uri) else (f"s3://{split_s3(video.uri)[0]}", "")
    now = open_store(root or "/", endpoint_url).head(key or split_s3(video.uri)[1])
    return replace(video, etag=now.etag, size_bytes=now.size_bytes, last_modified=now.last_modified)


def list_inputs(inputs: Sequence[Input], selection: SelectionSettings) -> InputListing:
    """List the inputs, once, and make sure that no two videos want the same output path.

    Raises `InputError` when two different videos map to one output path, or when there is no video at all.
    """
    videos, passed_over = VideoList(), 0
    for video in _each_once(inputs, selection):
        if video is None:
            passed_over += 1
        else:
            videos.add(video)
    if not videos:
        names = ", ".join(one.named for one in inputs)
        others = f"; {passed_over} other files are not named like a video or not included" if passed_over else ""
        raise InputError(f"no video in {names}{others}. A folder is searched for {' '.join(sorted(VIDEO_EXTENSIONS))}")
    return InputListing(videos, passed_over)


def check_output_outside_inputs(inputs: Iterable[Input], output: str) -> None:
    """Raise `InputError` when the output lies inside an input, where its previews would be taken for videos."""
    target = output.rstrip("/") if is_s3(output) else os.path.realpath(local_path(output))
    for one in inputs:
        root = one.store.root if is_s3(one.store.root) else os.path.realpath(one.store.root).rstrip("/")
        if target != root and not target.startswith(f"{root}/"):
            continue
        below = f"{target[len(root) :]}/previews/x.mp4".lstrip("/")
        if below.startswith(one.prefix) and (one.pattern is None or one.pattern.fullmatch(below)):
            raise InputError(f"the output {output} lies inside the input {one.named}: choose one beside it")


def _parse_local(named: str) -> Input:
    path = local_path(named)
    if os.path.isdir(path):
        return Input(named, LocalStore(path), "", None, False, "")
    if os.path.exists(path):
        folder, name = os.path.split(path)
        return Input(named, LocalStore(folder), name, re.compile(re.escape(name)), True, "")
    if not is_glob(path):
        raise InputError(f"{named}: no such file or folder")
    root, pattern = split_glob(path)
    return Input(named, LocalStore(root or "/"), "", glob_regex(pattern), spells_extension(pattern), "")


def _parse_s3(named: str, endpoint_url: str | None) -> Input:
    bucket, key = split_s3(named)
    store, output_prefix = S3Store(f"s3://{bucket}", endpoint_url), f"{bucket}/"
    if key and not key.endswith("/") and _exists(store, key):
        return Input(named, store, key, re.compile(re.escape(key)), True, output_prefix)
    if is_glob(key):
        root, pattern = split_glob(key)
        prefix = f"{root}/" if root else ""
        return Input(named, store, prefix, glob_regex(prefix + pattern), spells_extension(pattern), output_prefix)
    for prefix in dict.fromkeys((key if key.endswith("/") or not key else f"{key}/", key)):
        if next(store.list(prefix), None) is not None:
            return Input(named, store, prefix, None, False, output_prefix)
    raise InputError(f"{named}: no object has this key or begins with it")


def _exists(store: Store, key: str) -> bool:
    try:
        store.head(key)
    except ObjectNotFoundError:
        return False
    return True


def _source_video(one: Input, found: StoredObject) -> SourceVideo:
    path = encode_output_path(one.output_prefix + found.key)
    return SourceVideo(one.store.uri(found.key), path, found.etag, found.size_bytes, found.last_modified)


def _wanted(one: Input, found: StoredObject, selection: SelectionSettings) -> bool:
    name = found.key.rsplit("/", 1)[-1]
    named_like_a_video = bool(selection.include) or os.path.splitext(name)[1].lower() in VIDEO_EXTENSIONS
    if not one.any_name and (name.startswith(APPLE_DOUBLE) or not named_like_a_video):
        return False
    if selection.include and not matches(found.key, selection.include):
        return False
    return not matches(found.key, selection.exclude)
