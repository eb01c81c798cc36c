"""The same work with the same weights as a Ray Data pipeline, as its documentation has one write it."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
import ray
import ray.data
import torch
from numpy.typing import NDArray

from benchmarks.child_process import cores
from benchmarks.figures import Measured, Peer
from benchmarks.network_pairs import Networks
from benchmarks.plain_loop import PlainNetworks, rgb_frames

BATCH_FRAMES: Final = 8
"""Frames in a batch."""


def ray_data(videos: Sequence[Path], networks: Networks, output: Path) -> Peer:
    """Paths -> frames -> batches through actors that hold both networks -> Parquet.

    One actor of one thread for each core; half of the logical cores are left to the tasks that decode and write,
    without which nothing would run. As for the job, the start ends when every actor has its networks; what is decoded
    until then is in the pipeline's favour. Call it in a child.
    """
    started = time.time()
    _connect()
    try:
        (
            ray.data.from_items([{"path": str(video)} for video in videos], override_num_blocks=len(videos))
            .flat_map(_rows_of_frames, num_cpus=0.5)
            .map_batches(
                PoseActor,
                fn_constructor_args=(networks,),
                batch_size=BATCH_FRAMES,
                num_cpus=0.5,
                compute=ray.data.ActorPoolStrategy(size=_cluster_cores()),
            )
            .write_parquet(str(output))
        )
    finally:
        ray.shutdown()
    written = pq.read_table(output, columns=["persons", "actor_ready", "done"]).to_pydict()
    ready, done = max(written["actor_ready"]), max(written["done"])
    return Peer("Ray Data", Measured(len(written["persons"]), sum(written["persons"]), done - ready, ready - started))


def _connect() -> None:
    """To the cluster of ``RAY_ADDRESS``, else to a Ray of our own with an object store of Ray's choice."""
    address = os.environ.get("RAY_ADDRESS")
    if address:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    else:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray leaves one in the home folder
        ray.init(
            address="local",
            num_cpus=cores(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False


def _cluster_cores() -> int:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(resources["CPU"])


def _rows_of_frames(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for number, image in enumerate(rgb_frames(Path(row["path"]))):
        yield {"path": row["path"], "frame_index": number, "image": image}


class PoseActor:
    """What ``map_batches`` calls."""

    def __init__(self, networks: Networks) -> None:
        torch.set_num_threads(1)
        self._plain = PlainNetworks(networks, "cpu")
        self._ready = time.time()

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """A batch of frames to a row of flat keypoints for each."""
        images = list(batch["image"])
        boxes = self._plain.boxes(images)
        regions = [self._plain.regions(one) for one in boxes]
        crops = [
            self._plain.crop(image, region) for image, ones in zip(images, regions, strict=True) for region in ones
        ]
        keypoints = self._plain.keypoints(crops, np.concatenate(regions)) if crops else np.zeros((0, 17, 3))
        persons = [len(one) for one in boxes]
        per_frame = np.split(keypoints, np.cumsum(persons)[:-1])
        return {
            "path": batch["path"],
            "frame_index": batch["frame_index"],
            "persons": np.array(persons),
            "keypoints": [one.ravel().tolist() for one in per_frame],
            "actor_ready": np.full(len(images), self._ready),
            "done": np.full(len(images), time.time()),
        }
