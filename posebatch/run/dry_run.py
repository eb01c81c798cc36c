"""The dry run: what a run would do with each video and why, and how long it would take."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from posebatch.core.errors import PosebatchError
from posebatch.core.redaction import visible
from posebatch.core.settings import Settings
from posebatch.core.videos import SourceVideo, VideoPlan
from posebatch.core.wording import counted
from posebatch.dataset.layout import RECORDS
from posebatch.dataset.publication import fetch_record
from posebatch.run.context import RunContext
from posebatch.run.planning.cold_storage import ColdVideos
from posebatch.run.planning.decisions import SETTINGS_CHANGED, Action
from posebatch.run.planning.names import passed_over_by_content
from posebatch.run.planning.network_changes import name_changes
from posebatch.run.planning.planner import Planned, decisions
from posebatch.run.preparation import prepare
from posebatch.run.progress_text import duration_text
from posebatch.run.run_folder import last_summary
from posebatch.storage.open import open_video
from posebatch.storage.store import Store
from posebatch.video.probe import probe

PROBE_THREADS: Final = 8
"""Videos whose headers are read at once."""


def dry_run(named: list[str], output: str, settings: Settings, measure: bool = False) -> None:
    """Print a line for each video, then the totals; writes nothing.

    ``named``: inputs as the user gave them. ``measure``: estimate the time from ten seconds of real work on the longest
    of the videos, and not from the last run. Raises `UsageError` if the run would be refused, and `StorageError`.
    """
    settings.night.notify_address()  # raises, as a run would, if the variable holds none
    prepared = prepare(named, output, settings)
    store, context = prepared.store, prepared.context
    next(store.list(RECORDS), None)  # raises if the bucket does not exist; reading a record there finds none
    index = prepared.load_index()
    counts = dict.fromkeys(Action, 0)
    others, cold = prepared.listing.passed_over, ColdVideos()
    seconds = frames = 0.0
    longest: _Probed | None = None
    if index.notice:
        print(index.notice, file=sys.stderr)
    remaining = decisions(prepared.videos(), index, context)
    with ThreadPoolExecutor(PROBE_THREADS) as threads:
        while batch := list(islice(remaining, 4 * PROBE_THREADS)):
            batch = list(threads.map(lambda planned: _explained(planned, store, context), batch))
            probes = threads.map(lambda planned: _probe(planned, context), batch)
            for planned, probed in zip(batch, probes, strict=True):
                video, decision = planned.video, planned.decision
                counts[decision.action] += 1
                if decision.action is Action.PASSED_OVER:
                    others.add(passed_over_by_content(video, decision.reason))
                if decision.action is Action.COLD:
                    cold.add(video)
                reason = visible(decision.reason)
                print(f"{decision.action.value:<11} {visible(video.uri)}  ({reason}){_probe_text(probed)}")
                if isinstance(probed, VideoPlan):
                    seconds += probed.info.duration_s
                    frames += _frames_to_process(probed, settings)
                    if longest is None or probed.info.duration_s > longest.plan.info.duration_s:
                        longest = _Probed(video, probed)
    for line in (*others.lines(), *cold.lines()):
        print(visible(line))
    for warning in prepared.listing.warnings:
        print(f"note: {visible(warning)}")
    counted_actions = ", ".join(f"{count} {action.value}" for action, count in counts.items() if count)
    print(f"\n{counted_actions or 'no video in this shard'}")
    print(f"{duration_text(seconds)} of video to do, {counted(round(frames), 'frame')}")
    if longest is None:
        print("nothing to compute")
    else:
        print(_measured(longest, context, frames) if measure else _as_in_the_last_run(store, context, frames))


@dataclass(frozen=True)
class _Probed:
    """A video whose header is read."""

    video: SourceVideo
    plan: VideoPlan


def _explained(planned: Planned, store: Store, context: RunContext) -> Planned:
    """The same decision, with the reason naming what differs from the commit record: networks or OKS-NMS."""
    if planned.decision.reason != SETTINGS_CHANGED:
        return planned
    committed = fetch_record(store, planned.video.output_path)
    changed = committed and name_changes(committed.record, context)
    return replace(planned, decision=replace(planned.decision, reason=changed)) if changed else planned


def _probe(planned: Planned, context: RunContext) -> VideoPlan | PosebatchError | None:
    video = planned.video
    if planned.decision.action is not Action.COMPUTE:
        return None
    try:
        with open_video(video, context.endpoint_url) as file:
            settings = context.settings
            track = settings.sampling.video_track
            return probe(file, video.uri, settings.execution.segment_seconds, settings.limits, track)
    except PosebatchError as error:
        return error


def _probe_text(probed: VideoPlan | PosebatchError | None) -> str:
    if probed is None:
        return ""
    if isinstance(probed, PosebatchError):
        return f"\n             will fail: {visible(str(probed))}"
    info = probed.info
    segments = "cut after a scan of the file" if probed.needs_scan else counted(len(probed.segments), "segment")
    tracks = f", track {info.track} of ({'; '.join(info.tracks_in_file)})" if len(info.tracks_in_file) > 1 else ""
    return f"  {info.codec} {info.width}x{info.height}, {duration_text(info.duration_s)}, {segments}{tracks}"


def _frames_to_process(plan: VideoPlan, settings: Settings) -> float:
    total = plan.info.frames_in_header or plan.info.duration_s * plan.info.avg_fps
    if settings.sampling.fps is not None:
        return min(total, plan.info.duration_s * settings.sampling.fps)
    return total / settings.sampling.stride


def _as_in_the_last_run(store: Store, context: RunContext, frames: float) -> str:
    """The time by the steady state of the last run."""
    summary = last_summary(store, context.data_fingerprint)
    if summary is None:
        return (
            "time: unknown, as no run with these settings has worked here; --probe-speed measures it with ten seconds "
            "of real work"
        )
    rate, start_s = summary["frames_per_second"], summary["start_s"] or 0.0
    return f"about {duration_text(start_s + frames / rate)} at the {rate:.1f} frames/s of run {summary['run_id']}"


def _measured(probed: _Probed, context: RunContext, frames: float) -> str:
    """The time by a measurement on one of the videos."""
    from posebatch.run.workers.speed_probe import probe_speed  # noqa: PLC0415 - loads torch, which takes seconds

    try:
        speed = probe_speed(probed.video, probed.plan, context)
    except PosebatchError as error:
        return f"time: not measured: {visible(str(error))}"
    where = visible(probed.video.uri)
    if not speed.frames_per_second:
        return f"time: not measured, as {where} is too short"
    return time_by_probe(speed.frames_per_second, speed.device, context.settings.execution.workers, frames, where)


def time_by_probe(rate: float, device: str, workers: str, frames: float, where: str) -> str:
    """The time for ``frames`` at the ``rate`` of one worker, in frames per second, as text.

    ``workers`` is the setting. For ``auto`` a CPU has one worker for each core; for a GPU the workers that share it are
    counted as one. ``where``: the video of the measurement.
    """
    count = int(workers) if workers != "auto" else (os.cpu_count() or 1) if device == "cpu" else 1
    each = f"{rate:.1f} frames/s" + (f" with each of {count} workers" if count > 1 else " with one worker")
    return f"about {duration_text(frames / (rate * count))} at {each}, measured on {where}"
