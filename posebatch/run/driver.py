"""The whole run on one page: prepare, hold the output, load the index, schedule, report."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from posebatch.core.errors import OutputError, OutputHeldError, PosebatchError, RunAbortedError, StorageError
from posebatch.core.night_settings import NightSettings
from posebatch.core.records import VideoRecord
from posebatch.core.redaction import visible
from posebatch.core.scripts import exit_code_of
from posebatch.core.settings import Settings
from posebatch.core.videos import SourceVideo
from posebatch.dataset.layout import record_key
from posebatch.dataset.lease import hold_lease
from posebatch.dataset.output_paths import check_case_collisions
from posebatch.run.admission import Admission
from posebatch.run.connection import OpenPool, ray_pool
from posebatch.run.context import RunContext
from posebatch.run.failure_policy import DEFAULT_LIMITS, SchedulerLimits
from posebatch.run.log_lines import LogLine, LogWriter
from posebatch.run.meter import RunMeter
from posebatch.run.metered_pool import MeteredPool
from posebatch.run.notification import EndNotice
from posebatch.run.outcome import RunOutcome, exit_code_text, print_outcome, summary
from posebatch.run.planning.commit_index import CommitIndex
from posebatch.run.planning.planner import Decide, decisions
from posebatch.run.planning.web_addresses import unsigned
from posebatch.run.pool import Pool
from posebatch.run.preparation import Prepared, prepare
from posebatch.run.progress import Progress
from posebatch.run.run_folder import RunFolder
from posebatch.run.scheduler import Scheduler
from posebatch.run.stop_request import StopRequest, stop_on_signals
from posebatch.run.tally import Tally
from posebatch.storage.store import Store


def run_job(
    named: list[str],
    output: str,
    settings: Settings,
    open_pool: OpenPool = ray_pool,
    limits: SchedulerLimits = DEFAULT_LIMITS,
) -> RunOutcome:
    """Run the job and print how it ended.

    ``named``: inputs as the user gave them. Raises `UsageError` when the run is refused, and `RunAbortedError` when it
    was stopped or cannot go on.
    """
    started = datetime.now().astimezone()
    with EndNotice(settings.night, output, log_format=settings.execution.log_format) as notice:
        prepared = prepare(named, output, settings)
        _refuse_existing(prepared)
        return perform_job(_job(prepared, named), open_pool, limits, settings.night.deadline_after(started), notice)


@dataclass(frozen=True)
class Job:
    """Work on many videos of one output."""

    context: RunContext
    store: Store
    """The output."""
    named: list[str]
    """The inputs as the user gave them, for ``settings.yaml``."""
    videos: Iterable[SourceVideo]
    tally: Tally
    load_index: Callable[[Callable[[], None], Callable[[str], None]], CommitIndex]
    """Loads what the output holds; its arguments are ``on_listed`` and ``say`` of `CommitIndex.load`."""
    heading: str
    check: Callable[[], None] = lambda: None
    """Raises `UsageError` if the job is refused, once the output is held."""
    decide: Decide = decisions


def perform_job(
    job: Job,
    open_pool: OpenPool,
    limits: SchedulerLimits = DEFAULT_LIMITS,
    deadline: datetime | None = None,
    notice: EndNotice | None = None,
) -> RunOutcome:
    """Hold the output, do the work, and print how it ended. Raises as `run_job`.

    ``deadline``: see `Admission`. ``notice`` is sent at the end.
    """
    meter = RunMeter(job.tally, job.context.run_id)
    try:
        return _perform(job, open_pool, limits, deadline, notice or EndNotice(NightSettings(), job.store.root), meter)
    except OutputHeldError as error:
        meter.lease_refused()
        meter.run_ended(exit_code_of(error))
        raise
    finally:
        if not meter.is_connected and os.environ.get("RAY_ADDRESS"):
            from posebatch.run.workers.ray_metrics import report_to_cluster  # noqa: PLC0415 - loads Ray

            report_to_cluster(meter)


def _perform(
    job: Job,
    open_pool: OpenPool,
    limits: SchedulerLimits,
    deadline: datetime | None,
    notice: EndNotice,
    meter: RunMeter,
) -> RunOutcome:
    context, store = job.context, job.store
    folder = RunFolder(store, context)
    stop = StopRequest()
    log_format = context.settings.execution.log_format
    log = LogWriter(sys.stdout, context.run_id, log_format)

    def say(message: str) -> None:
        log.write(LogLine("note", message))

    selection = context.settings.selection
    lease = hold_lease(store, context.run_id, selection.wait, say, on_lost=stop.request, part=selection.part)
    # A cluster may grant a stopped run no more than 3 s. So the summary is written first, the lease is released next,
    # then the notification is sent, and the ledger and the workers, which nobody misses, come last.
    notice.note(run_id=context.run_id, tally=job.tally)
    asked = time.monotonic()
    with ExitStack() as pools, ExitStack() as indexes, notice, lease:
        meter.waited_for_lease(time.monotonic() - asked)
        folder.open(job.named)
        job.check()
        if log_format == "json":
            log.write(LogLine("run_started", job.heading, facts={"videos_total": job.tally.videos_total}))
        else:
            print(job.heading, flush=True)
        stop_on_signals(stop)
        outcome = _schedule(
            job,
            folder,
            stop,
            lambda progress: pools.enter_context(open_pool(context, stop, progress)),
            indexes,
            limits,
            deadline,
            meter,
        )
        report_key = _report(job)
        print_outcome(outcome, store, folder.key, context.settings, report_key)
        notice.note(
            exit_code=outcome.exit_code,
            reason=exit_code_text(outcome, context.settings.selection),
            problems=outcome.problems,
            report_key=report_key,
        )
        return outcome


def _schedule(
    job: Job,
    folder: RunFolder,
    stop: StopRequest,
    start_pool: Callable[[Progress], Pool],
    indexes: ExitStack,
    limits: SchedulerLimits,
    deadline: datetime | None,
    meter: RunMeter,
) -> RunOutcome:
    """Process the videos; the summary is written however that ends. The ledger is written when ``indexes`` exits."""
    context = job.context
    log_format = context.settings.execution.log_format
    progress = Progress(job.tally, run_id=context.run_id, log_format=log_format, meter=meter)

    def on_record(record: VideoRecord) -> None:
        folder.add(record)
        progress.published(record)

    outcome = None
    try:
        index = indexes.enter_context(_load_index(job, progress, stop))
        admission = Admission(context.settings.night, job.tally, deadline, progress.say)
        scheduler = Scheduler(context, index, progress, stop, on_record, limits, admission=admission)
        outcome = scheduler.run(
            job.videos, lambda: MeteredPool(start_pool(progress), meter), meter.watching(job.decide)
        )
        meter.run_ended(outcome.exit_code)
        return outcome
    except PosebatchError as error:
        progress.abort(str(error))
        progress.meter.run_ended(exit_code_of(error))
        raise
    finally:
        progress.close()
        content = summary(context, progress.tally, progress.elapsed_s, outcome)
        _write_summary(folder, {**content, **progress.speed.summary()})


def _job(prepared: Prepared, named: list[str]) -> Job:
    videos, listing = prepared.listing.videos, prepared.listing
    part = prepared.context.settings.selection.part
    return Job(
        prepared.context,
        prepared.store,
        [unsigned(name) for name in named],
        videos,
        Tally(len(videos), videos.size_bytes, passed_over=listing.passed_over, warnings=listing.warnings),
        prepared.load_index,
        _heading(prepared),
        lambda: check_case_collisions(prepared.store, prepared.videos, part=part),
    )


def _report(job: Job) -> str | None:
    """Write the pages of ``--report``; returns the key of the run's page, None without one.

    An error here is only printed: the tables are published, and `posebatch report` makes the pages again.
    """
    if not job.context.settings.preview.report:
        return None
    from posebatch.report.pages.writing import write_report  # noqa: PLC0415 - few runs need the templates' library

    try:
        endpoint_url = job.context.settings.selection.endpoint_url
        return write_report(job.store, job.context.run_id, endpoint_url=endpoint_url).run_page
    except PosebatchError as error:
        print(f"posebatch: the report could not be written: {visible(str(error))}", file=sys.stderr)
        return None


def _load_index(job: Job, progress: Progress, stop: StopRequest) -> CommitIndex:
    try:
        index = job.load_index(stop.check, progress.say)
    except StorageError as error:
        raise RunAbortedError(f"the commit records cannot be read: {error}") from error
    if index.notice:
        progress.say(index.notice)
    return index


def _refuse_existing(prepared: Prepared) -> None:
    """Apply ``--on-existing error``."""
    if prepared.context.settings.selection.on_existing != "error":
        return
    for video, commit in prepared.load_index().summaries(prepared.videos()):
        if commit is not None:
            record = prepared.store.uri(record_key(video.output_path))
            raise OutputError(f"{record} exists already (--on-existing error)")


def _heading(prepared: Prepared) -> str:
    context, videos = prepared.context, prepared.listing.videos
    count = f"{len(videos)} video{'' if len(videos) == 1 else 's'}"
    size = f"{videos.size_bytes / 1e6:.1f} MB"
    shard = context.settings.selection.shard
    part = "" if shard is None else f"shard {shard}: "
    run = f"{part}{count}, {size} -> {prepared.store.root}  (run {context.run_id})"
    return f"{run}\ndetector {context.detector}\npose     {context.pose}"


def _write_summary(folder: RunFolder, content: dict[str, Any]) -> None:
    """A storage error here is only printed: it must not hide how the run ended."""
    try:
        folder.close(content)
    except StorageError as error:
        print(f"posebatch: the summary of this run could not be written: {visible(str(error))}", file=sys.stderr)
