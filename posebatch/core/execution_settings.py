"""The settings of how and within which limits the work is done. None changes a published row."""

from __future__ import annotations

from dataclasses import dataclass

from posebatch.core.options import option


@dataclass(frozen=True)
class ExecutionSettings:
    """How the work is done. No field changes a published row."""

    device: str = option("auto", "where the networks run", choices=("auto", "cpu", "cuda"))
    engine: str = option(
        "auto",
        "library that runs the networks; auto: OpenVINO on the CPU if it is installed, else torch",
        choices=("auto", "torch", "openvino"),
    )
    decoder: str = option(
        "auto",
        "video decoder; auto: NVDEC if the networks run on a GPU that has it, else cpu",
        choices=("auto", "cpu", "nvdec"),
    )
    workers: str = option("auto", "number of Ray actors; auto: one per CPU core, or two per GPU", metavar="auto|N")
    segment_seconds: float = option(
        20.0, "length of the segments into which a long video is split, seconds", low=0.1, metavar="S"
    )
    log_format: str = option("text", "lines of the log; json: one JSON object each", choices=("text", "json"))


@dataclass(frozen=True)
class LimitSettings:
    """Limits of a video and of the process that works on it; beyond them the video fails. No field changes a row."""

    max_pixels: int = option(150_000_000, "maximum pixels of a frame, width times height", low=1, metavar="N")
    max_streams: int = option(100, "maximum number of streams in a file", low=1, metavar="N")
    max_frames: int = option(50_000_000, "maximum number of frames in a video", low=1, metavar="N")
    max_hours: float = option(200.0, "maximum duration of a video by its timestamps, hours", low=0.001, metavar="H")
    max_memory_gb: float | None = option(
        None,
        "maximum memory of a worker process, GB; default: 16, or less in a container: four fifths of its memory limit "
        "divided among its workers, at least 4",
        low=0.1,
        metavar="GB",
    )
    max_seconds_per_frame: float = option(
        600.0,
        "maximum time for one frame or other step before the worker is ended, seconds",
        low=1,
        metavar="S",
    )
    max_idle_minutes: float = option(
        60.0, "maximum time without any progress before the run is aborted, minutes", low=0.01, metavar="M"
    )
    first_worker_minutes: float = option(
        10.0,
        "maximum time without a ready worker before the run is aborted, minutes: a cluster may have to add nodes",
        low=0.01,
        metavar="M",
    )
