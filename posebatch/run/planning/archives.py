"""Archives among the files of an input: each is replaced by its members.

An archive that cannot be listed stays, as one video that fails with the reason: it is counted, named and remembered as
any video that fails, and the others go on.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Final

from posebatch.core.errors import PosebatchError
from posebatch.run.planning.listed_files import ListedFile, SkippedFile
from posebatch.run.planning.names import PassedOver
from posebatch.storage.addresses import split_member
from posebatch.storage.archives.members import WHOLE
from posebatch.storage.open import list_members

THREADS: Final = 8
"""Archives that are listed at once. Each holds its directory in memory."""


MAX_WAITING: Final = 4096
"""Files that wait at most for the listing of an archive before them."""


LIKE_AN_ARCHIVE: Final = PassedOver("in a folder named like an archive, as in 'x.zip!'")
"""Its address would be that of a member."""


def with_members(
    files: Iterable[ListedFile],
    is_opened: Callable[[ListedFile], bool],
    members: re.Pattern[str] | None,
    endpoint_url: str | None,
) -> Iterator[ListedFile | SkippedFile]:
    """The files in order, with the members of each archive that ``is_opened`` in its place.

    ``members``: if given, names of members must match it.
    """
    with ThreadPoolExecutor(THREADS) as threads:
        waiting: deque[ListedFile | Future[list[ListedFile | SkippedFile]]] = deque()
        listings = 0
        for file in files:
            if is_opened(file) and not file.cold_class:
                waiting.append(threads.submit(_members, file, members, endpoint_url))
                listings += 1
            else:
                waiting.append(replace(file, etag=WHOLE.etag(file.etag)) if is_opened(file) else file)
            while waiting and (
                isinstance(waiting[0], ListedFile) or listings == 2 * THREADS or len(waiting) > MAX_WAITING
            ):
                listings -= not isinstance(waiting[0], ListedFile)
                yield from _of(waiting.popleft())
        while waiting:
            yield from _of(waiting.popleft())


def _of(waiting: ListedFile | Future[list[ListedFile | SkippedFile]]) -> list[ListedFile | SkippedFile]:
    if not isinstance(waiting, ListedFile):
        return waiting.result()
    if split_member(waiting.uri):
        return [SkippedFile(waiting.uri, LIKE_AN_ARCHIVE)]
    return [waiting]


def _members(
    archive: ListedFile, members: re.Pattern[str] | None, endpoint_url: str | None
) -> list[ListedFile | SkippedFile]:
    if split_member(archive.uri):
        return [SkippedFile(archive.uri, LIKE_AN_ARCHIVE)]
    try:
        listing = list_members(archive.uri, archive.etag, endpoint_url, archive.access)
    except PosebatchError:  # opening the archive as a video meets it again, and a record keeps it
        return [replace(archive, etag=WHOLE.etag(archive.etag))]
    found: list[ListedFile | SkippedFile] = [
        replace(
            archive,
            key=f"{archive.key}!/{member.name}",
            uri=f"{archive.uri}!/{member.name}",
            path=f"{archive.path}!/{member.name}",
            etag=member.location.etag(archive.etag),
            size_bytes=member.size_bytes,
        )
        for member in listing.members.values()
        if members is None or members.fullmatch(member.name)
    ]
    for what, count in listing.left_out.items():
        found += [SkippedFile(f"{archive.uri}!{what}{number}", PassedOver(what)) for number in range(count)]
    return found
