"""The whole run on one page: prepare, hold the output, load the index, schedule, report."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from posebatch.core.errors import OutputError, PosebatchError, RunAbortedError, StorageError
from posebatch.core.records import VideoRecord
from posebatch.core.redaction import visible
from posebatch.core.settings import Settings
from posebatch.core.videos import SourceVideo
from posebatch.dataset.layout import record_key
from posebatch.dataset.lease import hold_lease
from posebatch.dataset.output_paths import check_case_collisions
from posebatch.models.weights.names import weight_file
from posebatch.run.context import RunContext
from posebatch.run.failure_policy import DEFAULT_LIMITS, SchedulerLimits
from posebatch.run.log_lines import LogLine, LogWriter
from posebatch.run.outcome import RunOutcome, print_outcome, summary
from posebatch.run.planning.commit_index import CommitIndex
from posebatch.run.planning.planner import Decide, decisions
from posebatch.run.planning.web_addresses import unsigned
from posebatch.run.pool import Pool
from posebatch.run.preparation import Prepared, prepare
from posebatch.run.progress import Progress
from posebatch.run.run_folder import RunFolder
from posebatch.run.scheduler import Scheduler
from posebatch.run.stop_request import StopRequest
from posebatch.run.tally import Tally
from posebatch.storage.store import Store


@contextmanager
def ray_pool(context: RunContext, stop: StopRequest, progress: Progress) -> Iterator[Pool]:
    """Connect to Ray; the connection and the workers end on exit."""
    # Ray takes seconds to import and to start, so a run with nothing to do must not load it.
    from posebatch.run.workers.ray_pool import RayPool  # noqa: PLC0415
    from posebatch.run.workers.ray_session import choose_device, choose_workers, connected  # noqa: PLC0415

    def fetch_weights() -> None:
        # Once here: workers on this machine share the cache, and a failed download is reported at once.
        weight_file("detector", context.settings.estimator.detector_name)
        weight_file("pose", context.settings.estimator.pose_name)

    execution = context.settings.execution
    with ExitStack() as connection:
        with progress.during("starting Ray"):
            connection.enter_context(connected(execution, progress.say, stop.check))
        _stop_on_signals(stop)  # connecting has replaced the signal handlers
        device = "cpu" if context.only_derives else choose_device(execution)
        workers = choose_workers(execution, device)
        pool = RayPool(context, workers, device, before_workers=fetch_weights)
        try:
            yield pool
        finally:
            pool.close()


OpenPool = Callable[[RunContext, StopRequest, Progress], AbstractContextManager[Pool]]


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
    prepared = prepare(named, output, settings)
    _refuse_existing(prepared)
    return perform_job(_job(prepared, named), open_pool, limits)


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


def perform_job(job: Job, open_pool: OpenPool, limits: SchedulerLimits = DEFAULT_LIMITS) -> RunOutcome:
    """Hold the output, do the work, and print how it ended. Raises as `run_job`."""
    context, store = job.context, job.store
    folder = RunFolder(store, context)
    stop = StopRequest()
    log_format = context.settings.execution.log_format
    log = LogWriter(sys.stdout, context.run_id, log_format)

    def say(message: str) -> None:
        log.write(LogLine("note", message))

    lease = hold_lease(store, context.run_id, context.settings.selection.wait, say, on_lost=stop.request)
    # A cluster may grant a stopped run no more than 3 s. So the summary is written first, the lease is released next,
    # and the ledger and the workers, which nobody misses, come last.
    with ExitStack() as pools, ExitStack() as indexes, lease:
        folder.open(job.named)
        job.check()
        if log_format == "json":
            log.write(LogLine("run_started", job.heading, facts={"videos_total": job.tally.videos_total}))
        else:
            print(job.heading, flush=True)
        _stop_on_signals(stop)
        outcome = _schedule(
            job,
            folder,
            stop,
            lambda progress: pools.enter_context(open_pool(context, stop, progress)),
            indexes,
            limits,
        )
        print_outcome(outcome, store, folder.key, context.settings, _report(job))
        return outcome


def _schedule(
    job: Job,
    folder: RunFolder,
    stop: StopRequest,
    start_pool: Callable[[Progress], Pool],
    indexes: ExitStack,
    limits: SchedulerLimits,
) -> RunOutcome:
    """Process the videos; the summary is written however that ends. The ledger is written when ``indexes`` exits."""
    context = job.context
    progress = Progress(job.tally, run_id=context.run_id, log_format=context.settings.execution.log_format)

    def on_record(record: VideoRecord) -> None:
        folder.add(record)
        progress.published(record)

    outcome = None
    try:
        index = indexes.enter_context(_load_index(job, progress, stop))
        scheduler = Scheduler(context, index, progress, stop, on_record, limits)
        outcome = scheduler.run(job.videos, lambda: start_pool(progress), job.decide)
        return outcome
    except PosebatchError as error:
        progress.abort(str(error))
        raise
    finally:
        progress.close()
        counts = summary(context, progress.tally, progress.elapsed_s, outcome)
        _write_summary(folder, {**counts, **progress.speed.summary()})


def _job(prepared: Prepared, named: list[str]) -> Job:
    videos, listing = prepared.listing.videos, prepared.listing
    return Job(
        prepared.context,
        prepared.store,
        [unsigned(name) for name in named],
        videos,
        Tally(len(videos), videos.size_bytes, passed_over=listing.passed_over, warnings=listing.warnings),
        prepared.load_index,
        _heading(prepared),
        lambda: check_case_collisions(prepared.store, prepared.videos),
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


def _stop_on_signals(stop: StopRequest) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda caught, _: stop.request(signal.Signals(caught).name))


def _heading(prepared: Prepared) -> str:
    context, videos = prepared.context, prepared.listing.videos
    count = f"{len(videos)} video{'' if len(videos) == 1 else 's'}"
    size = f"{videos.size_bytes / 1e6:.1f} MB"
    run = f"{count}, {size} -> {prepared.store.root}  (run {context.run_id})"
    return f"{run}\ndetector {context.detector}\npose     {context.pose}"


def _write_summary(folder: RunFolder, content: dict[str, Any]) -> None:
    """A storage error here is only printed: it must not hide how the run ended."""
    try:
        folder.close(content)
    except StorageError as error:
        print(f"posebatch: the summary of this run could not be written: {visible(str(error))}", file=sys.stderr)
