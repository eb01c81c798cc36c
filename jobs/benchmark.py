"""How fast the job is, against a plain loop over the same frames with the same weights, in one run.

The plain loop is what the demo of SimpleBaseline does: decode a frame, run the detector on it, crop each person, run
the pose network on one crop after another; fp32, every core of the machine for one frame at a time. The job is the
real one: local Ray, actors, staging, publication. Start-up (Ray, loading the networks) is stated, not counted.

    python jobs/benchmark.py [VIDEO] [--copies N] [--plain-frames N] [--workers N] [--json FILE]

With ``--no-ray`` one worker runs in this process instead: for a machine without Ray.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from posebatch.estimator import sample_crop
from posebatch.geometry import apply_affine, crop_regions, grid_to_frame
from posebatch.heatmaps import decode_heatmaps
from posebatch.job import Prepared, prepare
from posebatch.models.pose_resnet import build_pose_network
from posebatch.models.registry import resolve
from posebatch.models.ssdlite import INPUT_SIZE, build_person_ssd
from posebatch.models.weights import load_into, load_weights
from posebatch.progress import Progress, Tally
from posebatch.runner import Runner
from posebatch.sample import write_sample
from posebatch.settings import settings_from
from posebatch.tables import read_videos
from posebatch.video import to_rgb

BBOX_THR = 0.3
GEMM_SIZE, GEMM_SECONDS = 1024, 3.0


@dataclass(frozen=True)
class Measured:
    """Frames and persons of a timed stretch."""

    frames: int
    persons: int
    seconds: float

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.frames / self.seconds


def plain_loop(video: Path, limit: int) -> Measured:
    """Frame by frame, batch 1, fp32, eager, as the networks come."""
    detector_record, detector_state = load_weights("detector", "ssdlite_mobilenet_v2_320")
    pose_record, pose_state = load_weights("pose", "simplebaseline_mobilenet_v2_256x192")
    detector, pose = build_person_ssd().eval(), build_pose_network(pose_record.architecture).eval()
    load_into(detector, detector_state, detector_record.name)
    load_into(pose, pose_state, pose_record.name)
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in (pose_record.mean, pose_record.std))

    def one_frame(image: NDArray[np.uint8]) -> int:
        found = detector([torch.from_numpy(image).permute(2, 0, 1).float() / 255])[0]
        boxes = found["boxes"][found["scores"] > BBOX_THR].numpy() - 0.5
        width, height = pose_record.input_size_wh
        for region in crop_regions(boxes, width / height, pose_record.box_padding):
            crop = sample_crop(torch.from_numpy(image), region, pose_record.input_size_wh)[None]
            heatmaps = pose((crop / 255 - mean) / std).numpy()
            peaks = decode_heatmaps(heatmaps)
            apply_affine(grid_to_frame(region[None], (width // 4, height // 4)), peaks[:, :, :2])
        return len(boxes)

    persons = frames = 0
    with torch.inference_mode(), av.open(str(video)) as container:
        container.streams.video[0].thread_type = "AUTO"
        images = (to_rgb(frame) for frame in container.decode(video=0))
        one_frame(next(images))  # the first call allocates and plans
        started = time.perf_counter()
        for image in images:
            persons += one_frame(image)
            frames += 1
            if frames == limit:
                break
        return Measured(frames, persons, time.perf_counter() - started)


@dataclass(frozen=True)
class Limit:
    """What the processor could do at most, measured in this run."""

    detector_flops: int
    """For one frame."""
    pose_flops: int
    """For one person."""
    gemm_flops_per_s: float
    """fp32 matrix products on all cores."""

    def rate(self, persons_per_frame: float) -> float:
        """Frames a second if the networks ran as fast as matrix products and all else were free."""
        return self.gemm_flops_per_s / (self.detector_flops + persons_per_frame * self.pose_flops)


def the_limit() -> Limit:
    """Count the networks' operations, and time matrix products."""
    pose_record = resolve("pose", "simplebaseline_mobilenet_v2_256x192")
    width, height = pose_record.input_size_wh
    networks = (
        (build_person_ssd().eval(), [torch.zeros(3, INPUT_SIZE, INPUT_SIZE)]),
        (build_pose_network(pose_record.architecture).eval(), torch.zeros(1, 3, height, width)),
    )
    counted = []
    with torch.inference_mode():
        for network, example in networks:
            with FlopCounterMode(display=False) as counter:
                network(example)
            counted.append(counter.get_total_flops())
        a, started, products = torch.randn(GEMM_SIZE, GEMM_SIZE), time.perf_counter(), 0
        while time.perf_counter() < started + GEMM_SECONDS:
            a @ a
            products += 1
        seconds = time.perf_counter() - started
    return Limit(counted[0], counted[1], 2 * GEMM_SIZE**3 * products / seconds)


def the_job(prepared: Prepared) -> tuple[Measured, float]:
    """The job on a local Ray; also the seconds until every worker was ready."""
    from posebatch.cluster import RayPool, choose_device, choose_workers, connected  # noqa: PLC0415 - not with --no-ray

    started = time.perf_counter()
    execution = prepared.context.settings.execution
    with connected(execution):
        device = choose_device(execution)
        pool = RayPool(prepared.context, choose_workers(execution, device), device)
        while pool.idle_workers() < pool.workers():
            pool.wait(0.2)
        ready = time.perf_counter()
        progress = Progress(Tally(videos_total=prepared.survey.videos, bytes_total=prepared.survey.size_bytes))
        outcome = Runner(prepared.context, prepared.store, lambda: pool, progress).run(prepared.videos())
        seconds = time.perf_counter() - ready
        pool.close()
    return Measured(outcome.tally.frames, outcome.tally.persons, seconds), ready - started


def one_worker(prepared: Prepared) -> tuple[Measured, float]:
    """One worker in this process, no Ray: probe, decode, estimate, stage, finalize."""
    from posebatch.runner import Completion  # noqa: PLC0415
    from posebatch.tasks import perform  # noqa: PLC0415
    from posebatch.worker import SegmentProcessor  # noqa: PLC0415

    context, started = prepared.context, time.perf_counter()
    processor = SegmentProcessor.load(context, threads=torch.get_num_threads())

    class InlinePool:
        def __init__(self) -> None:
            self._jobs: list[Any] = []

        def workers(self) -> int:
            return 1

        def idle_workers(self) -> int:
            return 0 if self._jobs else 1

        idle_task_slots = idle_workers

        def submit(self, job: Any) -> None:
            self._jobs.append(job)

        def wait(self, timeout_s: float) -> list[Completion]:
            jobs, self._jobs = self._jobs, []
            return [
                Completion(job, processor.process(job) if hasattr(job, "segment") else perform(job, context))
                for job in jobs
            ]

    ready = time.perf_counter()
    progress = Progress(Tally(videos_total=prepared.survey.videos, bytes_total=prepared.survey.size_bytes))
    outcome = Runner(context, prepared.store, InlinePool, progress).run(prepared.videos())
    return Measured(outcome.tally.frames, outcome.tally.persons, time.perf_counter() - ready), ready - started


def stages(output: str) -> dict[str, float]:
    """Seconds of all workers in each stage, from the videos table. Decoding runs in a thread beside the others."""
    videos = read_videos(output)
    seconds = {stage: float(videos[f"{stage}_seconds"].sum()) for stage in ("decode", "detect", "pose", "total")}
    rest = seconds["total"] - seconds["detect"] - seconds["pose"]
    return {**seconds, "rest": rest}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", nargs="?", help="default: the demo's sample")
    parser.add_argument("--copies", type=int, default=4, help="how often the job gets the video")
    parser.add_argument("--plain-frames", type=int, default=250, help="frames for the plain loop")
    parser.add_argument("--workers", default="auto")
    parser.add_argument("--segment-seconds", type=float, default=20.0)
    parser.add_argument("--no-ray", action="store_true")
    parser.add_argument("--json", metavar="FILE")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = Path(chosen.video) if chosen.video else Path(folder, "sample.mp4")
        if not chosen.video:
            write_sample(video)
        archive, output = Path(folder, "archive"), str(Path(folder, "output"))
        archive.mkdir()
        for i in range(chosen.copies):
            shutil.copy(video, archive / f"{i}{video.suffix}")
        settings = settings_from({"workers": chosen.workers, "segment_seconds": chosen.segment_seconds})
        plain = plain_loop(video, chosen.plain_frames)
        job, start_s = (one_worker if chosen.no_ray else the_job)(prepare([str(archive)], output, settings))
        report = describe(the_limit(), plain, job, start_s, stages(output))
    print(report["text"])
    if chosen.json:
        Path(chosen.json).write_text(json.dumps(report, indent=2))


def describe(limit: Limit, plain: Measured, job: Measured, start_s: float, seconds: dict[str, float]) -> dict[str, Any]:
    """The figures, and the text that states them."""
    total = seconds["total"]
    possible = limit.rate(job.persons / job.frames)
    text = "\n".join(
        [
            "",
            f"machine     {platform.machine()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, "
            f"torch {torch.__version__}, {'CUDA' if torch.cuda.is_available() else 'no CUDA'}",
            f"plain loop  {plain.rate:6.2f} frames/s  ({plain.frames} frames, {plain.persons} persons)",
            f"the job     {job.rate:6.2f} frames/s  ({job.frames} frames, {job.persons} persons)",
            f"ratio       {job.rate / plain.rate:6.2f}",
            f"limit       {possible:6.2f} frames/s: detector {limit.detector_flops / 1e9:.2f} GFLOP a frame, pose "
            f"{limit.pose_flops / 1e9:.2f} GFLOP a person,",
            f"                    fp32 matrix products {limit.gemm_flops_per_s / 1e9:.0f} GFLOP/s here; "
            f"the job reaches {job.rate / possible:.0%} of it",
            f"start-up    {start_s:6.1f} s, not counted",
            "where the workers' time goes:",
            f"  detect    {seconds['detect'] / total:6.1%}",
            f"  pose      {seconds['pose'] / total:6.1%}",
            f"  the rest  {seconds['rest'] / total:6.1%}  (waiting for the decoder, opening, staging)",
            f"  decode    {seconds['decode'] / total:6.1%}  in its own thread, beside the above",
        ]
    )
    return {
        "plain": vars(plain),
        "job": vars(job),
        "ratio": job.rate / plain.rate,
        "limit": vars(limit),
        "start_s": start_s,
        "stage_seconds": seconds,
        "text": text,
    }


if __name__ == "__main__":
    main()
