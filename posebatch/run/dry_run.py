"""The dry run: what a run would do with each video and why, and how long it would take."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Final

from posebatch.core.errors import PosebatchError
from posebatch.core.redaction import visible
from posebatch.core.settings import Settings
from posebatch.core.videos import VideoPlan
from posebatch.dataset.publication import fetch_record
from posebatch.run.context import RunContext
from posebatch.run.planning.decisions import SETTINGS_CHANGED, Action, name_changes
from posebatch.run.planning.planner import Planned, decisions
from posebatch.run.preparation import prepare
from posebatch.run.progress import duration_text
from posebatch.run.run_folder import last_summary
from posebatch.storage.open import open_source
from posebatch.storage.store import Store
from posebatch.video.probe import probe

PROBE_THREADS: Final = 8
"""Videos whose headers are read at once."""


def dry_run(named: list[str], output: str, settings: Settings) -> None:
    """Print a line for each video, then the totals; writes nothing.

    ``named``: inputs as the user gave them. Raises `UsageError` if the run would be refused, and `StorageError`.
    """
    prepared = prepare(named, output, settings)
    store, context, index = prepared.store, prepared.context, prepared.load_index()
    counts = dict.fromkeys(Action, 0)
    seconds = frames = 0.0
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
                reason = visible(decision.reason)
                print(f"{decision.action.value:<11} {visible(video.uri)}  ({reason}){_probe_text(probed)}")
                if isinstance(probed, VideoPlan):
                    seconds += probed.info.duration_s
                    frames += _frames_to_process(probed, settings)
    print("\n" + ", ".join(f"{count} {action.value}" for action, count in counts.items() if count))
    print(f"{seconds / 3600:.2f} hours of video to do, {frames:.0f} frames; {_estimate(store, context, frames)}")


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
        with open_source(video.uri, video.etag, context.endpoint_url) as file:
            settings = context.settings
            return probe(file, video.uri, settings.execution.segment_seconds, settings.limits)
    except PosebatchError as error:
        return error


def _probe_text(probed: VideoPlan | PosebatchError | None) -> str:
    if probed is None:
        return ""
    if isinstance(probed, PosebatchError):
        return f"\n             will fail: {visible(str(probed))}"
    info = probed.info
    return (
        f"  {info.codec} {info.width}x{info.height}, {duration_text(info.duration_s)}, {len(probed.segments)} segments"
    )


def _frames_to_process(plan: VideoPlan, settings: Settings) -> float:
    total = plan.info.frames_in_header or plan.info.duration_s * plan.info.avg_fps
    if settings.sampling.fps is not None:
        return min(total, plan.info.duration_s * settings.sampling.fps)
    return total / settings.sampling.stride


def _estimate(store: Store, context: RunContext, frames: float) -> str:
    if not frames:
        return "nothing to compute"
    summary = last_summary(store, context.data_fingerprint)
    if summary is None:
        return "time: unknown until a run with these settings has finished here (try --limit 1)"
    rate = summary["frames"] / summary["elapsed_s"]
    return f"about {duration_text(frames / rate)} at the {rate:.1f} frames/s of run {summary['run_id']}"
