"""From the inputs that a user names (files, folders, globs, S3 keys and prefixes) to the videos of the archive.

Each video also gets its *output path*, which mirrors its path in the archive; see `encode_output_path`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from posebatch.core.errors import InputError, ObjectNotFoundError
from posebatch.core.fingerprints import digest
from posebatch.core.selection_settings import SelectionSettings
from posebatch.core.videos import SourceVideo
from posebatch.run.planning.archive_shape import ArchiveShape
from posebatch.run.planning.archives import with_members
from posebatch.run.planning.globs import glob_regex, is_glob, spells_extension, split_glob
from posebatch.run.planning.inventory import PREFIX as INVENTORY
from posebatch.run.planning.inventory import listed_in_inventory, read_manifest
from posebatch.run.planning.listed_files import ListedFile, SkippedFile, listed_in_store
from posebatch.run.planning.names import VIDEO_EXTENSIONS, PassedOver, PassedOverFiles, passed_over
from posebatch.run.planning.video_list import VideoList
from posebatch.run.planning.web_addresses import listed_on_the_web, parse_addresses
from posebatch.storage.addresses import bucket_folder, is_http, is_s3, local_path, split_member, split_s3
from posebatch.storage.archives.members import WHOLE, is_archive, member_source
from posebatch.storage.local import LocalStore
from posebatch.storage.s3 import S3Store
from posebatch.storage.store import Store
from posebatch.video.content import numbered_pictures


@dataclass(frozen=True)
class Input:
    """An input: a root to list, and the rule that selects its keys."""

    named: str
    """As the user gave it."""
    store: Store | None
    """None if the files are listed by something else than their store."""
    prefix: str
    """Keys below the store's root start with this."""
    pattern: re.Pattern[str] | None
    """Keys must match it, if there is one."""
    any_name: bool
    """Whether files without the name of a video count, too."""
    output_prefix: str
    """Precedes a key in its output path: the bucket, for S3."""
    access: str = ""
    """As in `SourceVideo`."""
    archives: bool = False
    """Whether archives are opened without ``--archives``, because the user names them."""
    members: re.Pattern[str] | None = None
    """Members of archives must match it, if there is one."""
    listing: Callable[[], Iterator[ListedFile]] | None = None
    """Lists the files of an input without a store."""

    def files(self) -> Iterator[ListedFile]:
        """The selected files, in the order of the listing."""
        if self.listing is not None:
            listed = self.listing()
        else:
            assert self.store is not None
            listed = listed_in_store(self.store, self.prefix, self.output_prefix, self.access)
        return (file for file in listed if self.pattern is None or self.pattern.fullmatch(file.key))


@dataclass(frozen=True)
class InputListing:
    """The videos in the inputs, listed before any work begins."""

    videos: VideoList
    passed_over: PassedOverFiles = field(default_factory=PassedOverFiles)
    """The other files. Each file of the inputs is either among these or a video."""
    warnings: tuple[str, ...] = ()
    """What readers of the output have to know about the folders of this archive."""


def parse_inputs(named: Sequence[str], endpoint_url: str | None = None, access: str = "") -> list[Input]:
    """The inputs that a user named; ``access`` is that of objects on S3, as in `SourceVideo`.

    Raises `InputError` if there is none, or if one does not exist.
    """
    if not named:
        raise InputError("no input: name a video, a folder, a glob, s3://bucket/prefix, or use --inputs-from FILE")
    addresses = [name for name in named if is_http(name)]
    others = [_parse(name, endpoint_url, access) for name in named if not is_http(name)]
    return others + ([_parse_addresses(addresses)] if addresses else [])


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


def _each_once(inputs: Sequence[Input], selection: SelectionSettings) -> Iterator[SourceVideo | PassedOver]:
    """Each video once, and the reason of each file that is passed over. A video of one input is passed over by none."""
    if len(inputs) == 1 and inputs[0].listing is None:  # keys of one store differ, and so do their output paths
        for listed in _list_files(inputs, selection):
            yield listed if isinstance(listed, SourceVideo) else listed.reason
        return
    owners: dict[bytes, bytes] = {}  # output path -> address, as digests: 200 bytes for each video
    skipped: dict[bytes, PassedOver] = {}  # by digest of the address
    for listed in _list_files(inputs, selection):
        uri = digest(listed.uri)
        if isinstance(listed, SkippedFile):
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


def _list_files(inputs: Sequence[Input], selection: SelectionSettings) -> Iterator[SourceVideo | SkippedFile]:
    part = selection.part
    opens_archives = selection.archives or any(source.archives for source in inputs)
    for source in inputs:
        named_to = len(source.prefix)

        def is_opened(file: ListedFile, source: Input = source, named_to: int = named_to) -> bool:
            """Whether a file is an archive that is to be opened."""
            if not is_archive(file.key) or not (selection.archives or source.archives):
                return False
            rules = replace(selection, include=())
            return passed_over(file.key, rules, source.pattern, any_name=True, named_to=named_to) is None

        files: Iterator[ListedFile | SkippedFile] = source.files()
        if opens_archives:
            files = with_members(source.files(), is_opened, source.members, selection.endpoint_url)
        for file in files:
            if part is not None and not part.holds(digest(file.shard_key)):
                continue
            if isinstance(file, SkippedFile):
                yield file
                continue
            member = member_source(file.uri, file.etag)
            if member is not None and member.location == WHOLE:  # it could not be listed, whatever its name
                yield file.video()
                continue
            pattern, any_name = (source.pattern, source.any_name) if member is None else (None, False)
            reason = passed_over(file.key, selection, pattern, any_name, named_to)
            yield file.video() if reason is None else SkippedFile(file.uri, reason)


def _collision(inputs: Sequence[Input], selection: SelectionSettings, video: SourceVideo) -> InputError:
    """The error about two videos with one output path. Lists again to name the first, whose address was not kept."""
    others = (other for other in _list_files(inputs, selection) if isinstance(other, SourceVideo))
    owner = next((other.uri for other in others if other.output_path == video.output_path), "another video")
    return InputError(
        f"{owner} and {video.uri} would both be published as {video.output_path!r}: "
        "name a folder above both, or give each an --output of its own"
    )


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


def _parse(named: str, endpoint_url: str | None, access: str) -> Input:
    if named.startswith(INVENTORY):
        return _parse_inventory(named.removeprefix(INVENTORY), endpoint_url, access)
    parts = split_member(named)
    if parts is not None and not _is_file(named, endpoint_url, access):
        archive, member = parts
        members = glob_regex(member) if is_glob(member) else re.compile(f"{re.escape(member.rstrip('/'))}(?:/.*)?")
        found = _parse_whole(archive, endpoint_url, access)
        return replace(found, named=named, members=members) if member else found
    return _parse_whole(named, endpoint_url, access)


def _is_file(named: str, endpoint_url: str | None, access: str) -> bool:
    """Whether a file has this address, although the address looks like that of a member."""
    if not is_s3(named):
        return os.path.lexists(local_path(named))
    bucket, key = split_s3(named)
    return _exists(S3Store(f"s3://{bucket}", endpoint_url, access=access), key)


def _parse_whole(named: str, endpoint_url: str | None, access: str) -> Input:
    found = _parse_s3(named, endpoint_url, access) if is_s3(named) else _parse_local(named)
    return replace(found, archives=found.any_name and is_archive(named))


def _parse_addresses(addresses: Sequence[str]) -> Input:
    queries = parse_addresses(addresses)
    named = next(iter(queries)) if len(queries) == 1 else f"{len(queries)} addresses"
    archives = any(is_archive(uri) for uri in queries)
    return Input(named, None, "", None, True, "", archives=archives, listing=lambda: listed_on_the_web(queries))


def _parse_inventory(named: str, endpoint_url: str | None, access: str) -> Input:
    inventory = read_manifest(named, endpoint_url)
    listing = partial(listed_in_inventory, inventory, endpoint_url, access)
    return Input(f"--inventory {named}", None, "", None, False, "", access, listing=listing)


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


def _parse_s3(named: str, endpoint_url: str | None, access: str) -> Input:
    bucket, key = split_s3(named)
    store, output_prefix = S3Store(f"s3://{bucket}", endpoint_url, access=access), f"{bucket_folder(bucket)}/"
    if key and not key.endswith("/") and _exists(store, key):
        return Input(named, store, key, re.compile(re.escape(key)), True, output_prefix, access)
    if is_glob(key):
        root, pattern = split_glob(key)
        prefix = f"{root}/" if root else ""
        rule = glob_regex(prefix + pattern)
        return Input(named, store, prefix, rule, spells_extension(pattern), output_prefix, access)
    for prefix in dict.fromkeys((key if key.endswith("/") or not key else f"{key}/", key)):
        if next(store.list(prefix), None) is not None:
            return Input(named, store, prefix, None, False, output_prefix, access)
    raise InputError(f"{named}: no object has this key or begins with it")


def _exists(store: Store, key: str) -> bool:
    try:
        store.head(key)
    except ObjectNotFoundError:
        return False
    return True
