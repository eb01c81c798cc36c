"""Weight files in the formats of other projects, and a server that serves them correctly or with faults."""

import hashlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

Answer = Callable[[BaseHTTPRequestHandler], None]

PAPER = "paper_resnet50_256x192"
PAPER_FILE = "pose_resnet_50_256x192.pth.tar"
"""Its name has no hash, so any content is accepted."""


def paper_checkpoint(state: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint in the format of the paper's ``save_checkpoint`` after training on several GPUs."""
    return {
        "epoch": 140,
        "model": "pose_resnet",
        "state_dict": {f"module.{k}": v for k, v in state.items()},
        "perf": 0.7,
    }


def mmpose_checkpoint(state: Mapping[str, Any], version: int) -> dict[str, Any]:
    """A checkpoint in the format of mmpose. Version 1 contains the data set's description, with NumPy arrays."""
    head = "head." if version == 1 else "keypoint_head."
    is_head = ("deconv_layers.", "final_layer.")
    renamed = {f"{head if key.startswith(is_head) else 'backbone.'}{key}": value for key, value in state.items()}
    meta: dict[str, Any] = {"epoch": 210, "time": "Fri Sep 23 2022"}
    if version == 1:
        meta |= {
            "dataset_meta": {"sigmas": np.full(17, 0.05, np.float32), "keypoint_colors": np.zeros((17, 3), np.uint8)},
            "best_score": np.float64(0.718),
        }
    return {"meta": meta, "state_dict": renamed}


def renamed_by_hash(file: Any, content: bytes) -> Any:
    """The record of a published file, renamed to the hash of ``content``."""
    sha256 = hashlib.sha256(content).hexdigest()
    name = file.file_name.replace(file.sha256_prefix, sha256[:8])
    return replace(file, file_name=name, url=file.url.replace(file.file_name, name))


@dataclass
class WeightServer:
    """A server's answer to each path, and its requests so far."""

    url: str
    files: dict[str, bytes | Answer] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


@contextmanager
def running_weight_server() -> Iterator[WeightServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            server.requests.append(name)
            answer = server.files.get(name, status(404))
            (answer if callable(answer) else content(answer))(self)

        def log_message(self, *_: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = WeightServer(f"http://127.0.0.1:{listening.server_port}")
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def content(body: bytes) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def status(code: int) -> Answer:
    return lambda handler: handler.send_error(code)


def truncated(body: bytes) -> Answer:
    """Announces the whole length and closes the connection after half of it."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])

    return answer


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """Closes the connection without an answer."""
    handler.connection.shutdown(socket.SHUT_RDWR)


def in_turn(*answers: Answer) -> Answer:
    """A different answer to each request, in this order."""
    left = iter(answers)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        next(left)(handler)

    return answer


def every_file(folder: Path) -> list[str]:
    """Paths of the files below a folder, without the lock files of a cache."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    )
