"""A folder as an S3 server for reading: listings and ranged reads, each answered after a delay, all of them counted.

Swift stores 100 small objects a second, and moto answers one request at a time: neither can serve 500,000 objects. This
server does what readers need: ListObjectsV2, GET with a range, and HEAD. ETags are those of `LocalStore`, so that a
compaction on the disk is one of this store as well. The server checks no signatures. Bucket ``b`` is the
folder. ``POST /`` returns the counts as JSON and begins new ones. Keys are listed once, at the start.
"""

from __future__ import annotations

import asyncio
import bisect
import html
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, quote, unquote, urlsplit
from urllib.request import Request, urlopen

from posebatch.storage.local import local_etag

BUCKET: Final = "b"


PAGE_KEYS: Final = 1000


@dataclass
class _Folder:
    root: Path
    delay_s: float
    keys: list[str] = field(default_factory=list)
    entries: dict[str, tuple[int, str, float]] = field(default_factory=dict)
    """Size, ETag and time of the last change by key."""
    counts: Counter[str] = field(default_factory=Counter)

    def scan(self) -> None:
        """List all files."""
        pending = [str(self.root)]
        while pending:
            for entry in os.scandir(pending.pop()):
                if entry.is_dir():
                    pending.append(entry.path)
                    continue
                stat = entry.stat()
                key = os.path.relpath(entry.path, self.root)
                self.entries[key] = (stat.st_size, local_etag(stat), stat.st_mtime)
        self.keys = sorted(self.entries)

    def answer(self, method: str, target: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer to a request."""
        address = urlsplit(target)
        bucket, _, key = unquote(address.path).lstrip("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(address.query, keep_blank_values=True).items()}
        if method == "POST" and not bucket:
            counted, self.counts = dict(self.counts), Counter()
            return 200, {}, json.dumps(counted).encode()
        if method == "GET" and not key:
            self.counts["list"] += 1
            return self._counted(200, {"Content-Type": "application/xml"}, self._page(query))
        self.counts["head" if method == "HEAD" else "get"] += 1
        if key not in self.entries:
            return 404, {"Content-Type": "application/xml"}, b"<Error><Code>NoSuchKey</Code></Error>"
        size, etag, changed = self.entries[key]
        shared = {"ETag": f'"{etag}"', "Last-Modified": formatdate(changed, usegmt=True), "Accept-Ranges": "bytes"}
        if method == "HEAD":
            return 200, {**shared, "Content-Length": str(size)}, b""
        first, last = 0, size - 1
        ranged = headers.get("range", "").removeprefix("bytes=")
        if ranged:
            begin, _, end = ranged.partition("-")
            first, last = (int(begin), min(int(end or last), last)) if begin else (max(0, size - int(end)), last)
            shared["Content-Range"] = f"bytes {first}-{last}/{size}"
        with open(self.root / key, "rb") as file:
            file.seek(first)
            return self._counted(206 if ranged else 200, shared, file.read(last - first + 1))

    def _counted(self, status: int, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        self.counts["bytes"] += len(body)
        return status, headers, body

    def _page(self, query: dict[str, str]) -> bytes:
        prefix, after = query.get("prefix", ""), query.get("continuation-token", query.get("start-after", ""))
        wanted = int(query.get("max-keys", PAGE_KEYS))
        begin = bisect.bisect_right(self.keys, after) if after > prefix else bisect.bisect_left(self.keys, prefix)
        page = [key for key in self.keys[begin : begin + wanted] if key.startswith(prefix)]
        following = self.keys[begin + len(page) : begin + len(page) + 1]
        more = bool(page and following and following[0].startswith(prefix))
        rows = "".join(map(self._row, page))
        token = f"<NextContinuationToken>{html.escape(page[-1])}</NextContinuationToken>" if more else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{BUCKET}</Name><Prefix>{html.escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}</ListBucketResult>"
        ).encode()

    def _row(self, key: str) -> str:
        size, etag, _ = self.entries[key]
        return (
            f"<Contents><Key>{html.escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{etag}&quot;</ETag><Size>{size}</Size></Contents>"
        )


async def _serve_client(folder: _Folder, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            line, *lines = head.decode("latin-1").split("\r\n")
            method, target, _ = line.split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in lines)}
            await reader.readexactly(int(headers.get("content-length", 0)))
            if method != "POST":
                await asyncio.sleep(folder.delay_s)
            status, answer, body = folder.answer(method, target, headers)
            answer = {
                "Content-Length": str(len(body)),
                "x-amz-request-id": "1",
                "Date": formatdate(usegmt=True),
                **answer,
            }
            text = "".join(f"{name}: {value}\r\n" for name, value in answer.items())
            writer.write(f"HTTP/1.1 {status} -\r\n{text}\r\n".encode("latin-1") + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _serve(folder: _Folder, ready: Connection) -> None:
    server = await asyncio.start_server(
        lambda reader, writer: _serve_client(folder, reader, writer), "127.0.0.1", 0, limit=1 << 20
    )
    ready.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def _process(root: Path, delay_s: float, ready: Connection) -> None:
    folder = _Folder(root, delay_s)
    folder.scan()
    asyncio.run(_serve(folder, ready))


@contextmanager
def serving(root: Path, delay_s: float) -> Iterator[str]:
    """Serve a folder in a process of its own; the address of the server."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_process, args=(root, delay_s, theirs), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


def take_counts(address: str) -> dict[str, int]:
    """Requests by kind, and bytes, since the last call."""
    with urlopen(Request(address, method="POST")) as answer:
        counted: dict[str, int] = json.loads(answer.read())
    return counted


def output_address(folder: str) -> str:
    """The address of an output in the served folder."""
    return f"s3://{BUCKET}/{quote(folder)}"
