"""Whether the output's file system keeps apart what the archive does.

Stores and most file systems take ``A.mp4`` and ``a.mp4`` for two names; some disks take them for one, and some the two
ways to write ``é``. There, one video's tables would silently replace another's.
"""

from __future__ import annotations

import os
import unicodedata
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from posebatch.digests import digest
from posebatch.errors import InputError
from posebatch.storage import SCRATCH_FOLDER, LocalStore, Store
from posebatch.types import SourceVideo

_COMPOSED, _DECOMPOSED = "\u00e9", "e\u0301"


def merges_names(root: str) -> bool:
    """Whether a folder takes names for one that differ in case, or in how accents are written; tries it out."""
    scratch = Path(root, SCRATCH_FOLDER)
    scratch.mkdir(parents=True, exist_ok=True)
    tried = scratch / f"{uuid.uuid4().hex}-a{_COMPOSED}"
    tried.touch()
    try:
        others = (tried.name.replace("-a", "-A"), tried.name.replace(_COMPOSED, _DECOMPOSED))
        return any(os.path.lexists(scratch / other) for other in others)
    finally:
        tried.unlink()


def check_kept_apart(
    store: Store, videos: Callable[[], Iterable[SourceVideo]], merges: Callable[[str], bool] = merges_names
) -> None:
    """Raise `InputError` when two of the videos would be one in a local output; ``videos`` lists them anew.

    Remembers 16 bytes of each video, and only where the file system merges names.
    """
    if not isinstance(store, LocalStore) or not merges(store.root):
        return
    seen: set[bytes] = set()
    for video in videos():
        mark = _mark(video)
        if mark in seen:
            other = next(one for one in videos() if _mark(one) == mark)
            raise InputError(
                f"{other.uri} and {video.uri}: the disk of the output {store.root} takes their names for one and "
                "would keep the results of one only; rename one, exclude it, or choose another --output"
            )
        seen.add(mark)


def _mark(video: SourceVideo) -> bytes:
    return digest(unicodedata.normalize("NFD", unicodedata.normalize("NFD", video.output_path).casefold()))
