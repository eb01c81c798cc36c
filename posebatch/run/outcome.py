"""How a run ended: its exit code, its summary for the run folder, and its report on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from posebatch.core.redaction import visible
from posebatch.core.scripts import EXIT_OK, EXIT_SOME_FAILED, EXIT_VIDEOS_LEFT
from posebatch.core.selection_settings import SelectionSettings
from posebatch.core.settings import Settings
from posebatch.core.version import __version__, commit
from posebatch.core.wording import counted
from posebatch.dataset.layout import PREVIEWS
from posebatch.run.context import RunContext
from posebatch.run.log_lines import LogLine, LogWriter, counts
from posebatch.run.progress_text import complaint, duration_text
from posebatch.run.tally import Tally
from posebatch.storage.store import Store

ProblemStatus = Literal["failed", "partial", "failed before", "partial before"]


PROBLEMS_PRINTED_BEFORE: Final = 20
"""Problems of earlier runs that a run prints. Its summary names more: a nightly log must not repeat them all."""


SUMMARY_SCHEMA: Final = 1
"""Version of ``summary.json``. Raise it when a field goes or changes its meaning; a new field leaves it."""


@dataclass(frozen=True)
class VideoProblem:
    """A video that failed or is published only in part, in this run or before."""

    video: str
    """Its address."""
    status: ProblemStatus
    reason: str

    @property
    def is_from_before(self) -> bool:
        """Whether an earlier run met it, and this run did not try again."""
        return self.status in ("failed before", "partial before")


class Problems:
    """The problems of a run, and those of earlier runs, each up to a limit: many old ones never hide a new one."""

    def __init__(self, most: int, on_new: Callable[[str, str, str], None] = lambda *_: None) -> None:
        """``most``: problems that are kept of this run, and as many of earlier runs.

        ``on_new`` receives each problem of this run: status, address of the video, and reason.
        """
        self._most, self._on_new = most, on_new
        self._new: list[VideoProblem] = []
        self._before: list[VideoProblem] = []

    def add(self, video: str, status: ProblemStatus, reason: str) -> None:
        """Add a problem, unless there are too many. ``video``: its address."""
        problem = VideoProblem(video, status, reason)
        if not problem.is_from_before:
            self._on_new(status, video, reason)
        problems = self._before if problem.is_from_before else self._new
        if len(problems) < self._most:
            problems.append(problem)

    def in_order(self) -> tuple[VideoProblem, ...]:
        """Those of this run, then those of earlier runs, each in order of occurrence."""
        return (*self._new, *self._before)


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended."""

    tally: Tally
    elapsed_s: float
    problems: tuple[VideoProblem, ...]
    """As `Problems.in_order` returns them, with `SchedulerLimits.max_problems` as the limit."""
    exit_code: int
    """See `exit_code`."""


@dataclass(frozen=True)
class CountedVideos:
    """The videos that decide the exit code."""

    bad: int
    """Failed, or published only in part."""
    all: int

    @classmethod
    def of(cls, tally: Tally, fail_on: str) -> CountedVideos:
        """For ``any``, all videos of the inputs, else those on which this run worked."""
        if fail_on == "any":
            return cls(tally.failed + tally.quarantined + tally.partial, tally.videos_done)
        return cls(tally.failed + tally.partial - tally.partial_before, tally.published + tally.derived + tally.failed)


def exit_code(tally: Tally, selection: SelectionSettings) -> int:
    """The exit code of a run that came to its end: 0 if its result is as wanted, 3 if too many videos failed or are
    partial, else 4 if the deadline or the budget left videos.

    3 comes before 4: the next run counts the failures of this one as earlier ones and would not report them.
    ``--fail-on`` says which videos count (`CountedVideos`). Without ``--fail-above`` one bad video is too many,
    or with ``never`` none is. With it, more than this share of the counted videos is too many, whatever ``--fail-on``.
    """
    judged = CountedVideos.of(tally, selection.fail_on)
    if selection.max_failed_share is not None:
        too_many = judged.bad > 0 and judged.bad / judged.all > selection.max_failed_share
    else:
        too_many = judged.bad > 0 and selection.fail_on != "never"
    if too_many:
        return EXIT_SOME_FAILED
    return EXIT_VIDEOS_LEFT if tally.is_cut_short else EXIT_OK


def summary(context: RunContext, tally: Tally, elapsed_s: float, outcome: RunOutcome | None) -> dict[str, Any]:
    """The content of ``summary.json``, which docs/summary.schema.json describes.

    ``outcome`` is None for a run that was stopped or aborted.
    """
    return {
        "schema": SUMMARY_SCHEMA,
        "run_id": context.run_id,
        "posebatch_version": __version__,
        "commit": commit(),
        "shard": context.settings.selection.shard,
        "finished": outcome is not None,
        "exit_code": outcome.exit_code if outcome else None,
        "settings_fingerprint": context.data_fingerprint,
        "detector": context.detector,
        "pose": context.pose,
        "elapsed_s": round(elapsed_s, 3),
        **{name: value for name, value in vars(tally).items() if not name.startswith("bytes_")},
        "gpu_hours": round(tally.gpu_hours, 4),
        "videos_left": tally.videos_left,
        "passed_over": tally.passed_over.rows(),
        "cold": tally.cold.rows(),
        "files_total": tally.videos_total - tally.no_videos + tally.passed_over.files,
        "complaints": [vars(problem) for problem in outcome.problems] if outcome else [],
    }


def print_outcome(
    outcome: RunOutcome, store: Store, run_key: str, settings: Settings, report_key: str | None = None
) -> None:
    """Print the counts, the problems, and where the results are.

    ``run_key``: folder of the run in the output; ``report_key``: its page, if there is one. A terminal gets the counts
    as a table. ``--log-format json`` makes one line of all that.
    """
    if settings.execution.log_format == "json":
        log = LogWriter(sys.stdout, run_key.rpartition("/")[2], "json")
        log.write(outcome_line(outcome, store, run_key, settings, report_key))
        return
    if sys.stdout.isatty():
        from posebatch.run.terminal import print_counts  # noqa: PLC0415 - a log needs no library for terminals

        print()
        print_counts(outcome.tally, outcome.elapsed_s)
    else:
        print(f"\n{_counts_text(outcome)}")
    for line in [*_notes(outcome.tally, settings), *_problems(outcome, f"{store.uri(run_key)}/summary.json")]:
        print(f"  {visible(line)}")
    for name, address in places(store, run_key, settings, report_key).items():
        print(f"{name:<8} {address}")
    print(exit_code_text(outcome, settings.selection), flush=True)


def outcome_line(
    outcome: RunOutcome, store: Store, run_key: str, settings: Settings, report_key: str | None = None
) -> LogLine:
    """The last line of a log as JSON: what `print_outcome` prints, without the problems, which had their own lines."""
    is_good = outcome.exit_code == EXIT_OK
    facts = {
        **counts(outcome.tally, outcome.elapsed_s),
        "exit_code": outcome.exit_code,
        "exit_code_reason": exit_code_text(outcome, settings.selection),
        "notes": _notes(outcome.tally, settings),
        "places": places(store, run_key, settings, report_key),
    }
    return LogLine("run_finished", _counts_text(outcome), "info" if is_good else "error", facts)


def places(store: Store, run_key: str, settings: Settings, report_key: str | None) -> dict[str, str]:
    """The addresses of the results, by what they hold."""
    folders = ["poses", "frames", "videos"]
    folders += ["tracks", "motion"] * settings.motion.track
    folders += [PREVIEWS[form].folder for form in settings.preview.formats]
    addresses = {folder: store.uri(f"{folder}/") for folder in folders}
    addresses["this run"] = f"{store.uri(run_key)}/"
    return addresses if report_key is None else {**addresses, "report": store.uri(report_key)}


def _counts_text(outcome: RunOutcome) -> str:
    tally = outcome.tally
    return (
        f"{tally.published} published, {_derived(tally)}{tally.up_to_date} up to date, {tally.failed} failed, "
        f"{tally.quarantined} failed before, {tally.partial} partial{_of_them_before(tally)}{_cold(tally)}; "
        f"{tally.frames} frames, "
        f"{tally.persons} persons in {duration_text(outcome.elapsed_s)}"
    )


def _notes(tally: Tally, settings: Settings) -> list[str]:
    most = settings.estimator.max_persons
    cut = f"cut off: {tally.frames_cut} frames hold more persons than --max-persons {most}"
    notes = [cut] if tally.frames_cut else []
    left = [*tally.passed_over.lines(), *tally.cold.lines()]
    return [*notes, *tally.notes(), *left, *(f"note: {warning}" for warning in tally.warnings)]


def _derived(tally: Tally) -> str:
    return f"{tally.derived} derived from stored poses, " if tally.derived else ""


def _cold(tally: Tally) -> str:
    return f", {tally.cold.videos} cold" if tally.cold.videos else ""


def _of_them_before(tally: Tally) -> str:
    return f" ({tally.partial_before} of them before)" if tally.partial_before else ""


def _problems(outcome: RunOutcome, summary_uri: str) -> list[str]:
    before = [problem for problem in outcome.problems if problem.is_from_before]
    named = [*outcome.problems[: len(outcome.problems) - len(before)], *before[:PROBLEMS_PRINTED_BEFORE]]
    lines = [f"{problem.status}: {complaint(problem.video, problem.reason)}" for problem in named]
    unprinted = outcome.tally.quarantined + outcome.tally.partial_before - min(len(before), PROBLEMS_PRINTED_BEFORE)
    if unprinted:
        lines.append(f"and {unprinted} more that failed or were partial before: see {summary_uri}")
    return lines


def exit_code_text(outcome: RunOutcome, selection: SelectionSettings) -> str:
    """The last line of a run: the exit code and, if a video failed, is partial or is left, why it is that one."""
    tally, judged = outcome.tally, CountedVideos.of(outcome.tally, selection.fail_on)
    if not tally.failed and not tally.quarantined and not tally.partial:
        return f"exit code {outcome.exit_code}{_left(tally, ': ')}"
    whose = "" if selection.fail_on == "any" else " of this run"
    share = selection.fail_above
    rule = f"--fail-on {selection.fail_on}" + ("" if share is None else f" --fail-above {share}")
    left = _left(tally, "; ")
    return f"exit code {outcome.exit_code}: {judged.bad} of {judged.all} videos{whose} failed or partial ({rule}){left}"


def _left(tally: Tally, separator: str) -> str:
    if not tally.is_cut_short:
        return ""
    why = "deadline" if tally.stopped_by == "deadline" else "end of its GPU hours"
    return (
        f"{separator}stopped at the {why} with {counted(tally.videos_left, 'video')} left; the same command continues"
    )
