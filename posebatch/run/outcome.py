"""How a run ended: its exit code, its summary for the run folder, and its report on the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from posebatch.core.redaction import visible
from posebatch.core.settings import Settings
from posebatch.core.version import __version__
from posebatch.run.context import RunContext
from posebatch.run.progress import Tally, duration_text
from posebatch.storage.store import Store

ProblemStatus = Literal["failed", "failed before", "partial"]


@dataclass(frozen=True)
class VideoProblem:
    """A video that failed, in this run or before, or that is published only in part."""

    video: str
    """Its address."""
    status: ProblemStatus
    reason: str


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended."""

    tally: Tally
    elapsed_s: float
    problems: tuple[VideoProblem, ...]
    """In order of occurrence; at most `SchedulerLimits.max_problems`."""

    @property
    def exit_code(self) -> int:
        """0 if every video is published whole, 3 if a video failed or is partial."""
        return 3 if self.tally.failed or self.tally.quarantined or self.tally.partial else 0


def summary(context: RunContext, tally: Tally, elapsed_s: float, outcome: RunOutcome | None) -> dict[str, Any]:
    """The content of ``summary.json``; ``outcome`` is None for a run that was stopped or aborted."""
    return {
        "run_id": context.run_id,
        "posebatch_version": __version__,
        "finished": outcome is not None,
        "settings_fingerprint": context.data_fingerprint,
        "detector": context.detector,
        "pose": context.pose,
        "elapsed_s": round(elapsed_s, 3),
        **{name: value for name, value in vars(tally).items() if not name.startswith("bytes_")},
        "videos_left": tally.videos_total - tally.videos_done,
        "passed_over": tally.passed_over.rows(),
        "files_total": tally.videos_total - tally.no_videos + tally.passed_over.files,
        "complaints": [vars(problem) for problem in outcome.problems] if outcome else [],
    }


def print_outcome(outcome: RunOutcome, store: Store, run_key: str, settings: Settings) -> None:
    """Print the counts, the problems, and where the results are. ``run_key``: folder of the run in the output."""
    tally = outcome.tally
    print(
        f"\n{tally.published} published, {tally.up_to_date} up to date, {tally.failed} failed, "
        f"{tally.quarantined} failed before, {tally.partial} partial; {tally.frames} frames, {tally.persons} persons "
        f"in {duration_text(outcome.elapsed_s)}"
    )
    if tally.frames_cut:
        most = settings.estimator.max_persons
        print(f"  cut off: {tally.frames_cut} frames hold more persons than --max-persons {most}")
    for line in tally.passed_over.lines():
        print(f"  {visible(line)}")
    for warning in tally.warnings:
        print(f"  note: {visible(warning)}")
    for problem in outcome.problems:
        address = "" if problem.video in problem.reason else f"{problem.video}: "
        print(f"  {problem.status}: {visible(address + problem.reason)}")
    print(f"poses    {store.uri('poses/')}\nframes   {store.uri('frames/')}\nvideos   {store.uri('videos/')}")
    if settings.preview.wanted:
        print(f"previews {store.uri('previews/')}")
    print(f"this run {store.uri(run_key)}/", flush=True)
