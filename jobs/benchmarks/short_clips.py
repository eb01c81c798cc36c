"""Many short clips: the whole job against its stages alone, with clips in groups and one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.figures import Measured, StageTimes


@dataclass(frozen=True)
class ClipRound:
    """Measurements that follow each other at once, so that other work on the machine slows all of them alike."""

    stages: StageTimes
    one_by_one: Measured
    """The job on Ray, each clip as any other video: probed, processed and published by three calls."""
    in_groups: Measured
    """The job on Ray, as it is."""


@dataclass(frozen=True)
class ClipFigures:
    """The same clips several times."""

    name: str
    cores: int
    clips: int
    frames_per_clip: int
    rounds: Sequence[ClipRound]
    cpu_one_by_one: Measured
    """The job in one process, whose processor time is known."""
    cpu_in_groups: Measured

    @property
    def one_by_one(self) -> list[float]:
        """Rate of the job as a fraction of the rate that the stages alone predict, by round."""
        return [each.one_by_one.rate / each.stages.predicted_rate(self.cores) for each in self.rounds]

    @property
    def in_groups(self) -> list[float]:
        """The same with clips in groups."""
        return [each.in_groups.rate / each.stages.predicted_rate(self.cores) for each in self.rounds]

    @property
    def efficiency(self) -> float:
        """The middle one of ``in_groups``."""
        return median(self.in_groups)


def clips_text(figures: ClipFigures) -> str:
    """The figures of short clips, a line for each round."""
    lines = [f"== {figures.clips} clips of {figures.frames_per_clip} frames, {figures.name}"]
    for number, each in enumerate(figures.rounds):
        stages = ", ".join(f"{stage} {1000 * seconds:.1f}" for stage, seconds in each.stages.stages.items())
        lines.append(
            f"round {number + 1}: stages {stages} ms a frame, predict {each.stages.predicted_rate(figures.cores):.1f} "
            f"frames/s; one by one {each.one_by_one.rate:.1f} ({figures.one_by_one[number]:.2f}), "
            f"in groups {each.in_groups.rate:.1f} ({figures.in_groups[number]:.2f})"
        )
    alone, groups = figures.cpu_one_by_one, figures.cpu_in_groups
    lines.append(
        f"in one process, processor time of a frame: one by one {1000 * alone.cpu_s / alone.frames:.1f} ms, "
        f"in groups {1000 * groups.cpu_s / groups.frames:.1f} ms"
    )
    lines.append(
        f"of the stages alone, the middle of the rounds: {median(figures.one_by_one):.2f} one by one, "
        f"{figures.efficiency:.2f} in groups"
    )
    return "\n".join(lines)
