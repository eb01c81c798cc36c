"""Which files are taken for videos by their names, and why the others are passed over."""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from posebatch.core.selection_settings import SelectionSettings
from posebatch.core.videos import SourceVideo
from posebatch.run.planning.globs import matches
from posebatch.storage.addresses import split_member
from posebatch.storage.archives.members import NOT_SEEKABLE, NOT_SEEKABLE_ADVICE, SEEKABLE, is_archive
from posebatch.video.content import advice_for_extension

EXTENSIONS_BY_DEMUXER: Final[Mapping[str, str]] = {
    "asf": ".asf .dvr-ms .wm .wmv",
    "avi": ".avi .divx .xvid",
    "dv": ".dif .dv",
    "flv": ".flv",
    "matroska": ".mk3d .mkv .webm",
    "mov": ".360 .3g2 .3gp .3gp2 .3gpp .f4v .hdmov .insv .ismv .lrf .lrv .m4v .mj2 .mov .mp4 .mp4v .mpg4 .mqv .osv .qt",
    "mpeg": ".evo .m2p .mod .mpe .mpeg .mpg .vob .vro",
    "mpegts": ".m2t .m2ts .mts .ssif .tod .tp .trp .ts",
    "mxf": ".mxf",
    "ogg": ".ogm .ogv .ogx",
}
"""The names of videos, by the demuxer that reads them (`posebatch.video.container.CONTAINER_FORMATS`)."""


VIDEO_EXTENSIONS: Final = frozenset(" ".join(EXTENSIONS_BY_DEMUXER.values()).split())
"""Extensions of the videos in a folder or prefix. A file that the user names may have any extension."""


_CLUTTER_FOLDERS: Final = (
    # thumbnails, trash, snapshots and indexes: of Synology and QNAP
    "@eaDir|@tmp|@Recycle|@Recently-Snapshot|#recycle|#snapshot|\\.@__thumb|"
    # of Windows
    r"\$RECYCLE\.BIN|(?-i:RECYCLER|RECYCLED)|System Volume Information|"
    # of macOS, and of file servers for it
    r"\.AppleDouble|\.DocumentRevisions-V100|\.fseventsd|\.Spotlight-V100|\.TemporaryItems|__MACOSX|"
    "Network Trash Folder|Temporary Items|"
    # of Linux desktops and Samba
    r"\.Trash[^/]*|\.recycle|\.Recycle\.Bin|\.thumbnails|\.thumbs|lost\+found|"
    # of file systems and synchronization
    r"\.snapshots?|~snapshot|\.zfs|\.stversions|\.dropbox\.cache"
)


_CLUTTER_FILES: Final = r"\._|\.trashed-\d+-"
"""Beginnings of names: metadata that macOS writes beside others on foreign disks, and the trash of Android."""


_CLUTTER: Final = re.compile(
    rf"(?:\A|(?<=/))(?:({_CLUTTER_FOLDERS})(?=/)|({_CLUTTER_FILES})(?=[^/]*\Z))", re.IGNORECASE
)


MAX_EXTENSION: Final = 12
"""Characters of the longest extension that is counted by itself, with its dot: longer ones are parts of a name."""


MAX_REASONS: Final = 200
"""Reasons that are counted one by one; the files of all further ones are counted together."""


@dataclass(frozen=True)
class PassedOver:
    """Why files are passed over."""

    what: str
    """The extension, the folder, or the rule."""
    take_in: str | None = None
    """The flag that takes them in, as one types it; None if no flag does."""
    advice: str | None = None
    """How to make videos of them, if posebatch cannot read such files."""


NO_EXTENSION: Final = PassedOver("no extension", "--include '*'")
OTHER_NAMES: Final = PassedOver("other names", "--include '*'")
NOT_INCLUDED: Final = PassedOver("not in --include", "a further --include")
EXCLUDED: Final = PassedOver("in --exclude", "a narrower --exclude")


class PassedOverFiles:
    """Files that were passed over, counted by reason."""

    def __init__(self) -> None:
        self._counts: Counter[PassedOver] = Counter()

    def add(self, reason: PassedOver, files: int = 1) -> None:
        """Count files."""
        known = reason in self._counts or len(self._counts) < MAX_REASONS
        self._counts[reason if known else OTHER_NAMES] += files

    def update(self, others: PassedOverFiles) -> None:
        """Count the files of ``others``, too."""
        for reason, files in others._counts.items():
            self.add(reason, files)

    @property
    def files(self) -> int:
        """Number of all files."""
        return self._counts.total()

    def by_reason(self) -> list[tuple[PassedOver, int]]:
        """The reasons with their numbers of files, the most frequent first."""
        return sorted(self._counts.items(), key=lambda item: (-item[1], item[0].what))

    def rows(self) -> list[dict[str, Any]]:
        """The same for ``summary.json``."""
        return [{"files": files, **vars(reason)} for reason, files in self.by_reason()]

    def lines(self, most: int = 10) -> Iterable[str]:
        """The same as text for people, at most ``most`` reasons."""
        if not self._counts:
            return
        count = f"{self.files} {'file' if self.files == 1 else 'files'}"
        yield f"passed over: {count} (a run with --include processes what matches, and nothing else)"
        for reason, files in self.by_reason()[:most]:
            hint = f"not read; to make a video: {reason.advice}" if reason.advice else reason.take_in or ""
            yield f"  {files:>7}  {reason.what:<12}  {hint}".rstrip()
        if len(self._counts) > most:
            yield f"           and {len(self._counts) - most} more kinds of files, named in summary.json of a run"


def passed_over(
    key: str, selection: SelectionSettings, pattern: re.Pattern[str] | None, any_name: bool, named_to: int = 0
) -> PassedOver | None:
    """Why a file is passed over by its name; None if it is taken for a video.

    ``pattern``: the rule by which the user's input selects keys. ``any_name``: the input gives the extension, or the
    file itself. ``named_to``: characters of the key that the user named.
    """
    clutter = _CLUTTER.search(key, named_to)
    if clutter and not _is_named(key, named_to, selection.include, pattern):
        return _by_clutter(clutter[1], clutter[2])
    extension = os.path.splitext(key.rsplit("/", 1)[-1])[1]
    if not (any_name or selection.include or extension.lower() in VIDEO_EXTENSIONS):
        return _by_archive(key) or _by_extension(extension)
    if selection.include and not matches(key, selection.include):
        return NOT_INCLUDED
    return EXCLUDED if matches(key, selection.exclude) else None


def passed_over_by_content(video: SourceVideo, content: str) -> PassedOver:
    """Why a file with the name of a video is passed over: its ``content`` is another."""
    return PassedOver(f"{os.path.splitext(video.uri)[1]}, {content}")


def _is_named(key: str, named_to: int, include: tuple[str, ...], pattern: re.Pattern[str] | None) -> bool:
    """Whether a pattern of the user means the clutter in a key: it does not match if the clutter has another name."""
    renamed = key[:named_to] + _CLUTTER.sub("x", key[named_to:])
    meant_by_input = pattern is not None and not pattern.fullmatch(renamed)
    return meant_by_input or any(matches(key, [one]) and not matches(renamed, [one]) for one in include)


@lru_cache
def _by_clutter(folder: str | None, beginning: str | None) -> PassedOver:
    if folder:
        return PassedOver(f"{folder}/", f"--include {shlex.quote(f'*{folder}/*')}")
    name = "._*" if beginning == "._" else ".trashed-*"
    return PassedOver(name, f"--include '{name}'")


def _by_archive(key: str) -> PassedOver | None:
    """The reason of an archive that is not opened; None for other files."""
    name = key.lower()
    if is_archive(key) and split_member(key) is not None:
        return PassedOver("archives in an archive", "unpack the outer one")
    if name.endswith(SEEKABLE):
        return PassedOver(f"{os.path.splitext(name)[1]}, archives", "--archives")
    kind = next((extension for extension in NOT_SEEKABLE if name.endswith(extension)), None)
    return PassedOver(f"{kind}, archives", NOT_SEEKABLE_ADVICE) if kind else None


@lru_cache
def _by_extension(extension: str) -> PassedOver:
    if extension in ("", "."):
        return NO_EXTENSION
    if len(extension) > MAX_EXTENSION or not extension.isprintable():
        return OTHER_NAMES
    take_in = f"--include {shlex.quote(f'*{glob.escape(extension)}')}"
    return PassedOver(extension, take_in, advice_for_extension(extension.lower()))
