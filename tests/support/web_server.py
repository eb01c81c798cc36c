"""A web server on loopback whose answers a test chooses."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest.mock import patch

Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers and body."""


@dataclass
class WebServer:
    """The address of a running server, and the requests that it received."""

    url: str
    requests: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)
    """Method, path with query, and headers."""


def serve_range(content: bytes, headers: Mapping[str, str], asked: Mapping[str, str]) -> Answer:
    """The answer of a sound server to a ranged GET."""
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", asked.get("Range", ""))
    if match is None:
        return 200, headers, content
    first, last = int(match[1]), min(int(match[2]), len(content) - 1)
    if first >= len(content):
        return 416, {"Content-Range": f"bytes */{len(content)}"}, b""
    place = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
    return 206, {**headers, **place}, content[first : last + 1]


@contextmanager
def running_web_server(answer: Callable[[str, Mapping[str, str]], Answer]) -> Iterator[WebServer]:
    """Serve while the block runs. ``answer`` receives the path with its query, and the headers of a GET."""
    received: list[tuple[str, str, Mapping[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            received.append((self.command, self.path, dict(self.headers)))
            status, headers, body = answer(self.path, self.headers)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_HEAD(self) -> None:  # a presigned address allows one method alone
            received.append((self.command, self.path, dict(self.headers)))
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        with patch.dict(os.environ, {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}):
            yield WebServer(f"http://127.0.0.1:{server.server_port}", received)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
