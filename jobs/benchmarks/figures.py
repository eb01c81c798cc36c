"""Figures of the benchmarks, and the ratios and efficiencies that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean


@dataclass(frozen=True)
class Measured:
    """Frames processed in a measured time."""

    frames: int
    persons: int
    seconds: float
    start_s: float = 0.0
    """Start-up before ``seconds``: starting Ray, loading networks, listing videos."""
    cpu_s: float = 0.0
    """Processor time of the measuring process, over all threads, in ``seconds``."""

    @property
    def rate(self) -> float:
        """Frames per second."""
        return self.frames / self.seconds

    @property
    def persons_per_frame(self) -> float:
        """Mean number of persons that the detector found in a frame."""
        return self.persons / self.frames


@dataclass(frozen=True)
class NetworkSpeed:
    """Speed of one network alone, and of matrix products measured just before and after it on the same threads."""

    gflops: float
    """GFLOP for one image, from its record."""
    images_per_s: float
    gemm_gflops_per_s: float

    @classmethod
    def mean(cls, parts: Sequence[NetworkSpeed]) -> NetworkSpeed:
        """The mean over equal workers that were measured at the same time."""
        images_per_s = fmean(part.images_per_s for part in parts)
        return NetworkSpeed(parts[0].gflops, images_per_s, fmean(part.gemm_gflops_per_s for part in parts))

    @property
    def gflops_per_s(self) -> float:
        """GFLOP per second of the network."""
        return self.gflops * self.images_per_s

    @property
    def share_of_gemm(self) -> float:
        """Operations per second as a fraction of those of a matrix product."""
        return self.gflops_per_s / self.gemm_gflops_per_s


@dataclass(frozen=True)
class StageTimes:
    """Seconds per frame of each stage alone."""

    device: str
    precision: str
    """Number format of the networks."""
    engine: str
    """Library that runs the networks."""
    threads: int
    """Threads of one worker. Every stage used all of them."""
    persons_per_frame: float
    decode_only: float
    """FFmpeg's decoder, a part of ``decode``."""
    decode: float
    """From the file to frames for the networks."""
    detect: float
    """Resizing, the detector, its postprocessing."""
    pose: float
    """Cropping, the pose network, heatmap decoding."""
    publish: float
    """Staging, reading back, and writing the tables and the commit record."""
    gemm_type: str
    """Number format of the matrix products."""
    detector: NetworkSpeed
    """The detector with its resizing and postprocessing."""
    pose_network: NetworkSpeed
    """The network alone, on ready crops."""

    @classmethod
    def mean(cls, parts: Sequence[StageTimes]) -> StageTimes:
        """The mean over equal workers that were measured together."""
        return replace(
            parts[0],
            decode_only=fmean(part.decode_only for part in parts),
            decode=fmean(part.decode for part in parts),
            detect=fmean(part.detect for part in parts),
            pose=fmean(part.pose for part in parts),
            publish=fmean(part.publish for part in parts),
            detector=NetworkSpeed.mean([part.detector for part in parts]),
            pose_network=NetworkSpeed.mean([part.pose_network for part in parts]),
        )

    @property
    def stages(self) -> dict[str, float]:
        """Seconds per frame of one worker, by stage."""
        return {"decode": self.decode, "detect": self.detect, "pose": self.pose, "publish": self.publish}

    def predicted_rate(self, cores: int) -> float:
        """Frames per second of a machine if only the stages took time.

        Without a GPU all stages share the cores, so their times add up. With a GPU the networks share the GPU, and
        decoding and publishing share the cores; the slower of the two is the limit.
        """
        on_cores = cores / self.threads
        if self.device == "cpu":
            return on_cores / sum(self.stages.values())
        return min(on_cores / (self.decode + self.publish), 1 / (self.detect + self.pose))


@dataclass(frozen=True)
class Memory:
    """Memory of a process with one worker, MB."""

    peak: float
    imports: float
    """After the imports; a part of ``peak``."""
    weights: float
    """Size of the two weight files."""


@dataclass(frozen=True)
class EndToEnd:
    """The whole job, from files to published tables."""

    name: str
    measured: Measured
    stages: StageTimes
    """Measured with the threads of one worker."""
    cores: int
    memory: Memory | None = None

    @property
    def efficiency(self) -> float:
        """The rate as a fraction of the rate that the stages alone predict for the same cores."""
        return self.measured.rate / self.stages.predicted_rate(self.cores)


@dataclass(frozen=True)
class Peer:
    """Another program on the same frames."""

    name: str
    measured: Measured
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds per frame by stage; empty if the stages cannot be separated."""


@dataclass(frozen=True)
class Scenario:
    """All measurements of one scene, one pair of networks and one precision."""

    scene: str
    networks: str
    precision: str
    """The value of ``--precision``."""
    cores: int
    one_process: EndToEnd
    on_ray: tuple[EndToEnd, ...]
    """By ascending number of workers."""
    peers: tuple[Peer, ...]

    @property
    def name(self) -> str:
        """Scene, networks, number format and engine, for tables."""
        stages = self.one_process.stages
        return f"{self.scene}, {self.networks}, {stages.precision} {stages.engine}"

    @property
    def job(self) -> EndToEnd:
        """The run to compare with others: on Ray with most workers, or else in one process."""
        return self.on_ray[-1] if self.on_ray else self.one_process

    @property
    def ratios(self) -> dict[str, float]:
        """Rate of the job relative to each peer, and of the actors relative to one process on the same cores."""
        against = {f"job / {peer.name}": self.job.measured.rate / peer.measured.rate for peer in self.peers}
        if self.on_ray:
            against["actors / one process"] = self.job.measured.rate / self.one_process.measured.rate
        return against
