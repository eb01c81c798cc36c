"""The same work with the same weights as a Ray Data pipeline, written as its documentation shows."""

from __future__ import annotations

import logging
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
from posebatch.run.workers.ray_session import connect_to_ray

BATCH_FRAMES: Final = 8
"""Frames per batch."""


def ray_data(videos: Sequence[Path], networks: Networks, output: Path) -> Peer:
    """Run paths -> frames -> batches through actors with both networks -> Parquet. Call it in a child process.

    One actor of one thread per core. Actors take half of Ray's CPUs; the other half is for decoding and writing. As for
    the job, start-up ends when every actor has its networks. Frames decoded by then are in the pipeline's favour.
    """
    started = time.time()
    with connect_to_ray(cores(), log_to_driver=False):
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
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
    written = pq.read_table(output, columns=["persons", "actor_ready", "done"]).to_pydict()
    ready, done = max(written["actor_ready"]), max(written["done"])
    return Peer("Ray Data", Measured(len(written["persons"]), sum(written["persons"]), done - ready, ready - started))


def _cluster_cores() -> int:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(resources["CPU"])


def _rows_of_frames(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for number, image in enumerate(rgb_frames(Path(row["path"]))):
        yield {"path": row["path"], "frame_index": number, "image": image}


class PoseActor:
    """The callable class for ``map_batches``."""

    def __init__(self, networks: Networks) -> None:
        torch.set_num_threads(1)
        self._plain = PlainNetworks(networks, "cpu")
        self._ready = time.time()

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Process a batch of frames; returns one row of flat keypoints per frame."""
        images = list(batch["image"])
        boxes = self._plain.boxes(images)
        regions = [self._plain.regions(frame_boxes) for frame_boxes in boxes]
        crops = [
            self._plain.crop(image, region)
            for image, frame_regions in zip(images, regions, strict=True)
            for region in frame_regions
        ]
        keypoints = self._plain.keypoints(crops, np.concatenate(regions)) if crops else np.zeros((0, 17, 3))
        persons = [len(frame_boxes) for frame_boxes in boxes]
        per_frame = np.split(keypoints, np.cumsum(persons)[:-1])
        return {
            "path": batch["path"],
            "frame_index": batch["frame_index"],
            "persons": np.array(persons),
            "keypoints": [poses.ravel().tolist() for poses in per_frame],
            "actor_ready": np.full(len(images), self._ready),
            "done": np.full(len(images), time.time()),
        }
