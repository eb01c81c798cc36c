"""What a compaction has to do: the listing of the commit records against those that the tables hold. No I/O here."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from posebatch.dataset.compaction.delta import DataFile
from posebatch.dataset.compaction.files import TARGET_BYTES, order_of
from posebatch.dataset.compaction.partitions import Partitioning, Values
from posebatch.dataset.compaction.taking import ListedVideo

BATCH_VIDEOS: Final = 50_000
"""Videos of one batch: five transactions. A killed compaction has lost at most one batch."""


SMALL_BYTES: Final = TARGET_BYTES // 2
"""Files below this size are written again together with new rows of their partition."""


@dataclass(frozen=True)
class Batch:
    """The videos that join the tables, and those that leave them."""

    new: tuple[ListedVideo, ...]
    """By partition, then by path."""
    gone: Mapping[str, Values]
    """Output paths of videos that were removed or published again, with the partition of their rows."""


def plan_batches(
    listed: Iterable[ListedVideo],
    held: Iterable[tuple[str, str, str]],
    partitioning: Partitioning,
    batch_videos: int = BATCH_VIDEOS,
) -> Iterator[Batch]:
    """The batches of a compaction; none if the tables are up to date.

    ``held`` are path, ETag and day of the records in the tables. All that leaves the tables does so in the first batch.
    """
    unseen = {path: (etag, day) for path, etag, day in held}
    new = []
    for video in listed:
        known = unseen.get(video.path)
        if known is not None and known[0] == video.etag:
            del unseen[video.path]
        else:
            new.append(video)
    gone = {path: partitioning.values(path, day) for path, (_, day) in unseen.items()}
    new.sort(key=lambda video: order_of(partitioning.values(video.path, video.day), video.path))
    videos = iter(new)
    while (chunk := tuple(islice(videos, batch_videos))) or gone:
        yield Batch(chunk, gone)
        gone = {}


def files_to_replace(files: Sequence[DataFile], gone: Iterable[str], with_small: bool) -> list[DataFile]:
    """Files that may hold rows of videos that leave; and, ``with_small``, files that are too small to stay."""
    leaving = sorted(gone)
    return [file for file in files if _holds_any(file, leaving) or (with_small and file.size_bytes < SMALL_BYTES)]


def _holds_any(file: DataFile, leaving: Sequence[str]) -> bool:
    place = bisect_left(leaving, file.paths[0])
    return place < len(leaving) and leaving[place] <= file.paths[1]
