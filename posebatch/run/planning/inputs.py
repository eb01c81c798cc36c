"""From the inputs that a user names (files, folders, globs, S3 keys and prefixes) to the videos of the archive.

Each video also gets its *output path*, which mirrors its path in the archive; see `encode_output_path`.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from posebatch.core.errors import InputError, ObjectNotFoundError
from posebatch.core.fingerprints import digest
from posebatch.core.selection_settings import SelectionSettings
from posebatch.core.videos import SourceVideo
from posebatch.dataset.output_paths import encode_output_path
from posebatch.run.planning.archive_shape import ArchiveShape
from posebatch.run.planning.globs import glob_regex, is_glob, spells_extension, split_glob
from posebatch.run.planning.names import VIDEO_EXTENSIONS, PassedOver, PassedOverFiles, passed_over
from posebatch.storage.addresses import is_s3, local_path, split_s3
from posebatch.storage.local import LocalStore
from posebatch.storage.open import open_store
from posebatch.storage.s3 import S3Store
from posebatch.storage.store import Store, StoredObject
from posebatch.video.content import numbered_pictures


@dataclass(frozen=True)
class Input:
    """An input: a root to list, and the rule that selects its keys."""

    named: str
    """As the user gave it."""
    store: Store
    prefix: str
    """Keys below the store's root start with this."""
    pattern: re.Pattern[str] | None
    """Keys must match it, if there is one."""
    any_name: bool
    """Whether files without the name of a video count, too."""
    output_prefix: str
    """Precedes a key in its output path: the bucket, for S3."""

    def objects(self) -> Iterator[StoredObject]:
        """The selected objects, in the order of the listing. Keys that consoles write for folders are none."""
        for stored in self.store.list(self.prefix):
            if not stored.key.endswith("/") and (self.pattern is None or self.pattern.fullmatch(stored.key)):
                yield stored


PACKED_VIDEOS: Final = 1000
"""Videos that a `VideoList` compresses together; their names are alike, so they take about 40 bytes each."""


class VideoList:
    """Videos in the order of their listing, compressed in memory, to be iterated more than once."""

    def __init__(self) -> None:
        self._packed: list[bytes] = []
        self._unpacked: list[tuple[str, str, str, int, float]] = []
        self.size_bytes = 0
        """Of all videos together."""
        self.folder = ""
        """The deepest folder that holds all output paths, with a slash at the end; empty: none does."""

    def add(self, video: SourceVideo) -> None:
        """Append a video."""
        if not self._packed and not self._unpacked:
            self.folder = _folder_of(video.output_path)
        while not video.output_path.startswith(self.folder):
            self.folder = _folder_of(self.folder[:-1])
        self._unpacked.append((video.uri, video.output_path, video.etag, video.size_bytes, video.last_modified))
        self.size_bytes += video.size_bytes
        if len(self._unpacked) == PACKED_VIDEOS:
            self._packed.append(zlib.compress(json.dumps(self._unpacked).encode(), level=1))
            self._unpacked = []

    def __len__(self) -> int:
        return len(self._packed) * PACKED_VIDEOS + len(self._unpacked)

    def __iter__(self) -> Iterator[SourceVideo]:
        for packed in self._packed:
            yield from (SourceVideo(*row) for row in json.loads(zlib.decompress(packed)))
        yield from (SourceVideo(*row) for row in self._unpacked)


@dataclass(frozen=True)
class InputListing:
    """The videos in the inputs, listed before any work begins."""

    videos: VideoList
    passed_over: PassedOverFiles = field(default_factory=PassedOverFiles)
    """The other files. Each file of the inputs is either among these or a video."""
    warnings: tuple[str, ...] = ()
    """What readers of the output have to know about the folders of this archive."""


def parse_inputs(named: Sequence[str], endpoint_url: str | None = None) -> list[Input]:
    """The inputs that a user named. Raises `InputError` if there is none, or if one does not exist."""
    if not named:
        raise InputError("no input: name a video, a folder, a glob, s3://bucket/prefix, or use --inputs-from FILE")
    return [_parse_s3(name, endpoint_url) if is_s3(name) else _parse_local(name) for name in named]


def read_input_list(path: str) -> list[str]:
    """The inputs in a file, one per line, without empty lines and lines that start with ``#``.

    Raises `InputError` if the file cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--inputs-from {path}: cannot be read: {error}") from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def list_videos(inputs: Sequence[Input], selection: SelectionSettings) -> Iterator[SourceVideo]:
    """The videos of the inputs, each once, in the order of the inputs and their listings.

    Raises `InputError` if two different videos map to one output path.
    """
    return (listed for listed in _each_once(inputs, selection) if isinstance(listed, SourceVideo))


@dataclass(frozen=True)
class _SkippedFile:
    uri: str
    reason: PassedOver


def _each_once(inputs: Sequence[Input], selection: SelectionSettings) -> Iterator[SourceVideo | PassedOver]:
    """Each video once, and the reason of each file that is passed over. A video of one input is passed over by none."""
    if len(inputs) == 1:  # keys of one input differ, and so do their output paths
        for listed in _list_files(inputs, selection):
            yield listed if isinstance(listed, SourceVideo) else listed.reason
        return
    owners: dict[bytes, bytes] = {}  # output path -> address, as digests: 200 bytes for each video
    skipped: dict[bytes, PassedOver] = {}  # by digest of the address
    for listed in _list_files(inputs, selection):
        uri = digest(listed.uri)
        if isinstance(listed, _SkippedFile):
            skipped[uri] = listed.reason
            continue
        path = digest(listed.output_path)
        if path not in owners:
            owners[path] = uri
            yield listed
        elif owners[path] != uri:
            raise _collision(inputs, selection, listed)
    for uri in owners.values():
        skipped.pop(uri, None)
    yield from skipped.values()


def _list_files(inputs: Sequence[Input], selection: SelectionSettings) -> Iterator[SourceVideo | _SkippedFile]:
    part = selection.part
    for source in inputs:
        for stored in source.objects():
            if part is not None and not part.holds(digest(_output_path(source, stored))):
                continue
            reason = passed_over(stored.key, selection, source.pattern, source.any_name, len(source.prefix))
            if reason is None:
                yield _source_video(source, stored)
            else:
                yield _SkippedFile(source.store.uri(stored.key), reason)


def _collision(inputs: Sequence[Input], selection: SelectionSettings, video: SourceVideo) -> InputError:
    """The error about two videos with one output path. Lists again to name the first, whose address was not kept."""
    others = (other for other in _list_files(inputs, selection) if isinstance(other, SourceVideo))
    owner = next((other.uri for other in others if other.output_path == video.output_path), "another video")
    return InputError(
        f"{owner} and {video.uri} would both be published as {video.output_path!r}: "
        "name a folder above both, or give each an --output of its own"
    )


def relist(video: SourceVideo, endpoint_url: str | None) -> SourceVideo:
    """The video as the store has it now. Raises `ObjectNotFoundError` if it is gone."""
    root, key = video.uri.rsplit("/", 1) if not is_s3(video.uri) else (f"s3://{split_s3(video.uri)[0]}", "")
    now = open_store(root or "/", endpoint_url).head(key or split_s3(video.uri)[1])
    return replace(video, etag=now.etag, size_bytes=now.size_bytes, last_modified=now.last_modified)


def list_inputs(inputs: Sequence[Input], selection: SelectionSettings) -> InputListing:
    """List the inputs once. With ``--shard``, all that follows is about the files of that shard.

    Raises `InputError` if two different videos map to one output path, or if there is no video in the inputs.
    """
    videos, others, shape = VideoList(), PassedOverFiles(), ArchiveShape()
    for listed in _each_once(inputs, selection):
        if isinstance(listed, PassedOver):
            others.add(listed)
        else:
            videos.add(listed)
            shape.add(listed.output_path)
    if not videos and (selection.part is None or not _has_video(inputs, replace(selection, shard=None))):
        names = ", ".join(source.named for source in inputs)
        left = "\n".join(["", *others.lines(), ""]) if others.files else ". "
        raise InputError(f"no video in {names}{left}A folder is searched for {' '.join(sorted(VIDEO_EXTENSIONS))}")
    return InputListing(videos, others, shape.warnings(video.output_path for video in videos))


def _has_video(inputs: Sequence[Input], selection: SelectionSettings) -> bool:
    return any(isinstance(listed, SourceVideo) for listed in _list_files(inputs, selection))


def check_output_outside_inputs(inputs: Iterable[Input], output: str) -> None:
    """Raise `InputError` if the output lies inside an input: the next run would take its previews for videos."""
    target = output.rstrip("/") if is_s3(output) else os.path.realpath(local_path(output))
    for source in inputs:
        root = source.store.root if is_s3(source.store.root) else os.path.realpath(source.store.root).rstrip("/")
        if target != root and not target.startswith(f"{root}/"):
            continue
        below = f"{target[len(root) :]}/previews/x.mp4".lstrip("/")
        if below.startswith(source.prefix) and (source.pattern is None or source.pattern.fullmatch(below)):
            raise InputError(f"the output {output} lies inside the input {source.named}: choose one beside it")


def _parse_local(named: str) -> Input:
    path = local_path(named)
    if os.path.isdir(path):
        return Input(named, LocalStore(path), "", None, False, "")
    if os.path.exists(path):
        folder, name = os.path.split(path)
        return Input(named, LocalStore(folder), name, re.compile(re.escape(name)), True, "")
    if re.search(r"%0?\d*d", os.path.basename(path)):
        raise InputError(
            f"{named}: numbered pictures are not read. This makes a video of them: {numbered_pictures(named)}"
        )
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


def _source_video(source: Input, stored: StoredObject) -> SourceVideo:
    return SourceVideo(
        source.store.uri(stored.key),
        _output_path(source, stored),
        stored.etag,
        stored.size_bytes,
        stored.last_modified,
    )


def _output_path(source: Input, stored: StoredObject) -> str:
    return encode_output_path(source.output_prefix + stored.key)


def _folder_of(path: str) -> str:
    """The folder above a path, with a slash at the end; empty if there is none."""
    return path[: path.rfind("/") + 1]
