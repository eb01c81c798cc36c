"""What is measured, as plain numbers, and what follows from it: ratios and efficiencies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean


@dataclass(frozen=True)
class Measured:
    """A timed stretch of frames."""

    frames: int
    persons: int
    seconds: float
    start_s: float = 0.0
    """Before it, and not counted in ``seconds``: starting Ray, loading networks, looking for something to do."""

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.frames / self.seconds

    @property
    def persons_per_frame(self) -> float:
        """That the detector found."""
        return self.persons / self.frames


@dataclass(frozen=True)
class NetworkSpeed:
    """One network alone, against matrix products of the same minute on the same threads."""

    gflops: float
    """For one image, as the registry states it."""
    images_per_s: float
    gemm_gflops_per_s: float

    @classmethod
    def mean(cls, parts: Sequence[NetworkSpeed]) -> NetworkSpeed:
        """Of one network in equal workers that were measured beside each other."""
        images_per_s = fmean(part.images_per_s for part in parts)
        return NetworkSpeed(parts[0].gflops, images_per_s, fmean(part.gemm_gflops_per_s for part in parts))

    @property
    def gflops_per_s(self) -> float:
        """What the network achieves."""
        return self.gflops * self.images_per_s

    @property
    def share_of_gemm(self) -> float:
        """Achieved operations as a fraction of those of a matrix product."""
        return self.gflops_per_s / self.gemm_gflops_per_s


@dataclass(frozen=True)
class StageTimes:
    """Each stage alone: seconds for one frame, and what follows for all together."""

    device: str
    precision: str
    """The number format in force."""
    engine: str
    """What runs the networks."""
    threads: int
    """Of one worker, which every stage had for itself."""
    persons_per_frame: float
    decode_only: float
    """FFmpeg's decoder, a part of ``decode``."""
    decode: float
    """From the file to frames as the networks take them."""
    detect: float
    """Resizing, the detector, its post-processing."""
    pose: float
    """Cropping, the pose network, joints from heatmaps."""
    publish: float
    """Staging, reading back, and writing the tables and the commit record."""
    gemm_type: str
    detector: NetworkSpeed
    """With its resizing and post-processing."""
    pose_network: NetworkSpeed
    """The network alone, on ready crops."""

    @classmethod
    def mean(cls, parts: Sequence[StageTimes]) -> StageTimes:
        """Of equal workers that were measured beside each other."""
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
        """Seconds of one worker for one frame, by stage."""
        return {"decode": self.decode, "detect": self.detect, "pose": self.pose, "publish": self.publish}

    def predicted_rate(self, cores: int) -> float:
        """Frames a second of a machine on which nothing but the stages takes time.

        Without a GPU all stages share the cores, so their times add up. With one, the networks share the GPU,
        decoding and publishing the cores, and the slower of the two sides sets the pace.
        """
        on_cores = cores / self.threads
        if self.device == "cpu":
            return on_cores / sum(self.stages.values())
        return min(on_cores / (self.decode + self.publish), 1 / (self.detect + self.pose))


@dataclass(frozen=True)
class Memory:
    """Of a process that held one worker, MB."""

    peak: float
    imports: float
    """When the libraries were loaded and nothing else: a part of ``peak``."""
    weights: float
    """Of the two weight files."""


@dataclass(frozen=True)
class EndToEnd:
    """The whole job, from files to published tables."""

    name: str
    measured: Measured
    stages: StageTimes
    """Measured with as many threads as a worker had here."""
    cores: int
    memory: Memory | None = None

    @property
    def efficiency(self) -> float:
        """Its rate as a fraction of what the stages alone predict for the same cores."""
        return self.measured.rate / self.stages.predicted_rate(self.cores)


@dataclass(frozen=True)
class Peer:
    """Another way to do the same work with the same weights."""

    name: str
    measured: Measured
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds for one frame by stage; empty when the peer's stages cannot be told apart."""


@dataclass(frozen=True)
class Scenario:
    """One scene, one pair of networks, one precision: all that was measured."""

    scene: str
    networks: str
    precision: str
    """As asked for."""
    cores: int
    one_process: EndToEnd
    on_ray: tuple[EndToEnd, ...]
    """With one worker, ..., with all."""
    peers: tuple[Peer, ...]

    @property
    def name(self) -> str:
        """For tables."""
        stages = self.one_process.stages
        return f"{self.scene}, {self.networks}, {stages.precision} {stages.engine}"

    @property
    def job(self) -> EndToEnd:
        """The run that is compared: on Ray with most workers, or in one process where there is no Ray."""
        return self.on_ray[-1] if self.on_ray else self.one_process

    @property
    def ratios(self) -> dict[str, float]:
        """The job against each peer, and actors against one process on the same cores."""
        against = {f"job / {peer.name}": self.job.measured.rate / peer.measured.rate for peer in self.peers}
        if self.on_ray:
            against["actors / one process"] = self.job.measured.rate / self.one_process.measured.rate
        return against
