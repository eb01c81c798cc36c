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
from typing import Final, TypeAlias

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


_Waiting: TypeAlias = "ListedFile | SkippedFile | Future[list[ListedFile | SkippedFile]]"


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
        waiting: deque[_Waiting] = deque()
        listings = 0
        for file in files:
            if split_member(file.uri):
                waiting.append(SkippedFile(file.uri, LIKE_AN_ARCHIVE))
            elif not is_opened(file):
                waiting.append(file)
            elif file.cold_class:
                waiting.append(_unlisted(file))
            else:
                waiting.append(threads.submit(_members, file, members, endpoint_url))
                listings += 1
            while waiting and (
                not isinstance(waiting[0], Future) or listings == 2 * THREADS or len(waiting) > MAX_WAITING
            ):
                listings -= isinstance(waiting[0], Future)
                yield from _of(waiting.popleft())
        while waiting:
            yield from _of(waiting.popleft())


def _of(waiting: _Waiting) -> list[ListedFile | SkippedFile]:
    return waiting.result() if isinstance(waiting, Future) else [waiting]


def _unlisted(archive: ListedFile) -> ListedFile:
    """An archive in place of its members: opening it as a video gives the reason, and a record keeps it."""
    return replace(archive, etag=WHOLE.etag(archive.etag))


def _members(
    archive: ListedFile, members: re.Pattern[str] | None, endpoint_url: str | None
) -> list[ListedFile | SkippedFile]:
    try:
        listing = list_members(archive.uri, archive.etag, endpoint_url, archive.access)
    except PosebatchError:
        return [_unlisted(archive)]
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
