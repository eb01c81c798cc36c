"""The main job, from what a user named to the exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from posebatch.core.errors import OutputError, PosebatchError, StorageError
from posebatch.core.redaction import visible
from posebatch.core.settings import Settings
from posebatch.core.version import __version__
from posebatch.dataset.layout import record_key
from posebatch.dataset.lease import hold_lease
from posebatch.dataset.output_paths import check_case_collisions
from posebatch.dataset.publication import CommittedRecord
from posebatch.models.weights.names import weight_file
from posebatch.run.context import RunContext
from posebatch.run.planning.commit_index import CommitIndex
from posebatch.run.pool import Pool
from posebatch.run.preparation import Prepared, prepare
from posebatch.run.progress import Progress, Tally, duration_text
from posebatch.run.run_folder import RunFolder
from posebatch.run.scheduler import Runner, RunOutcome
from posebatch.storage.store import Store


def run_job(named: list[str], output: str, settings: Settings) -> int:
    """Do the job and say how it went; returns the exit code."""
    prepared = prepare(named, output, settings)
    _refuse_existing(prepared)
    context, store, found = prepared.context, prepared.store, prepared.listing
    folder = RunFolder(store, context)
    progress = Progress(Tally(videos_total=len(found.videos), bytes_total=found.videos.size_bytes))
    with ExitStack() as opened:

        def start_pool() -> Pool:
            return opened.enter_context(_ray_pool(context, runner))

        def note(done: CommittedRecord) -> None:
            folder.add(done.record)
            prepared.standings.note(done)

        runner = Runner(context, prepared.standings, start_pool, progress, note)
        with hold_lease(store, context.run_id, settings.selection.wait, _say, on_lost=runner.stop):
            folder.open(named)
            check_case_collisions(store, prepared.videos)
            return _run(prepared, runner, progress, folder)


def _run(prepared: Prepared, runner: Runner, progress: Progress, folder: RunFolder) -> int:
    context, store, found = prepared.context, prepared.store, prepared.listing
    size_mb = found.videos.size_bytes / 1e6
    _say(f"{_count(len(found.videos), 'video')}, {size_mb:.1f} MB -> {store.root}  (run {context.run_id})")
    _say(f"detector {context.detector}\npose     {context.pose}")
    outcome = None
    try:
        _stop_on_signals(runner)
        outcome = runner.run(prepared.videos())
    finally:
        progress.close()
        _leave_summary(folder, _summary(context, progress, outcome))
        _leave_ledger(prepared.standings)
    _print_outcome(outcome, store, folder, context.settings)
    return outcome.exit_code


def _say(line: str) -> None:
    print(line, flush=True)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _leave_summary(folder: RunFolder, summary: dict[str, Any]) -> None:
    """A store that fails here must not hide how the run ended."""
    try:
        folder.close(summary)
    except StorageError as error:
        print(f"posebatch: the summary of this run could not be written: {visible(str(error))}", file=sys.stderr)


def _leave_ledger(standings: CommitIndex) -> None:
    """The next night only saves requests by it: its loss is no failure of this one."""
    try:
        standings.save()
    except PosebatchError as error:
        print(
            f"posebatch: the ledger could not be written, the next run reads more: {visible(str(error))}",
            file=sys.stderr,
        )


def _refuse_existing(prepared: Prepared) -> None:
    if prepared.context.settings.selection.on_existing != "error":
        return
    prepared.standings.open()
    for video, standing in prepared.standings.of(prepared.videos()):
        if standing is not None:
            there = prepared.store.uri(record_key(video.output_path))
            raise OutputError(f"{there} exists already (--on-existing error)")


@contextmanager
def _ray_pool(context: RunContext, runner: Runner) -> Iterator[Pool]:
    # Ray takes seconds to import and to start: only a run that has something to do pays for it
    from posebatch.run.workers.ray_pool import RayPool  # noqa: PLC0415
    from posebatch.run.workers.ray_session import choose_device, choose_workers, connected  # noqa: PLC0415

    # fetched here first: workers on this machine then find the files, and what cannot be fetched is said at once
    weight_file("detector", context.settings.estimator.detector_name)
    weight_file("pose", context.settings.estimator.pose_name)
    execution = context.settings.execution
    with connected(execution):
        _stop_on_signals(runner)  # Ray has put handlers of its own in their place
        device = choose_device(execution)
        pool = RayPool(context, choose_workers(execution, device), device)
        try:
            yield pool
        finally:
            pool.close()


def _stop_on_signals(runner: Runner) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda caught, _: runner.stop(signal.Signals(caught).name))


def _summary(context: RunContext, progress: Progress, outcome: RunOutcome | None) -> dict[str, Any]:
    tally = progress.tally
    return {
        "run_id": context.run_id,
        "posebatch_version": __version__,
        "finished": outcome is not None,
        "settings_fingerprint": context.data_fingerprint,
        "detector": context.detector,
        "pose": context.pose,
        "elapsed_s": round(progress.elapsed_s, 3),
        **{name: value for name, value in vars(tally).items() if not name.startswith("bytes_")},
        "complaints": [vars(complaint) for complaint in outcome.complaints] if outcome else [],
    }


def _print_outcome(outcome: RunOutcome, store: Store, folder: RunFolder, settings: Settings) -> None:
    tally = outcome.tally
    print(
        f"\n{tally.published} published, {tally.up_to_date} up to date, {tally.failed} failed, "
        f"{tally.quarantined} failed before, {tally.partial} partial; {tally.frames} frames, {tally.persons} persons "
        f"in {duration_text(outcome.elapsed_s)}"
    )
    if tally.frames_cut:
        most = settings.estimator.max_persons
        print(f"  cut off: {tally.frames_cut} frames hold more persons than --max-persons {most}")
    for complaint in outcome.complaints:
        about = "" if complaint.video in complaint.reason else f"{complaint.video}: "
        print(f"  {complaint.status}: {visible(about + complaint.reason)}")
    print(f"poses    {store.uri('poses/')}\nframes   {store.uri('frames/')}\nvideos   {store.uri('videos/')}")
    if settings.preview.wanted:
        print(f"previews {store.uri('previews/')}")
    print(f"this run {store.uri(folder.key)}/", flush=True)
