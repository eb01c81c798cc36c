"""The dry run: what a run would do, what is done, what failed and why, and how long it would take."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from posebatch.commits import read_record
from posebatch.errors import PosebatchError
from posebatch.job import prepare
from posebatch.plan import Action, Decision, RunContext, decide
from posebatch.progress import duration_text
from posebatch.runs import last_summary
from posebatch.settings import Settings
from posebatch.storage import Store, open_source
from posebatch.types import SourceVideo, VideoPlan
from posebatch.video import probe

PROBE_THREADS = 8


def dry_run(named: list[str], output: str, settings: Settings) -> None:
    """Print the plan: a line for each video, then the sums. Writes nothing."""
    prepared = prepare(named, output, settings)
    store, context = prepared.store, prepared.context
    counts = dict.fromkeys(Action, 0)
    seconds = frames = 0.0
    videos = prepared.videos()
    with ThreadPoolExecutor(PROBE_THREADS) as threads:
        while chunk := list(islice(videos, 4 * PROBE_THREADS)):
            for video, decision, looked in threads.map(lambda one: _look(one, store, context), chunk):
                counts[decision.action] += 1
                print(f"{decision.action.value:<11} {video.uri}  ({decision.reason}){_look_text(looked)}")
                if isinstance(looked, VideoPlan):
                    seconds += looked.info.duration_s
                    frames += _frames_to_process(looked, settings)
    print("\n" + ", ".join(f"{count} {action.value}" for action, count in counts.items() if count))
    print(f"{seconds / 3600:.2f} hours of video to do, {frames:.0f} frames; {_estimate(store, context, frames)}")


def _look(
    video: SourceVideo, store: Store, context: RunContext
) -> tuple[SourceVideo, Decision, VideoPlan | PosebatchError | None]:
    decision = decide(video, read_record(store, video.output_path), context)
    if decision.action is not Action.COMPUTE:
        return video, decision, None
    try:
        with open_source(video.uri, video.etag, context.endpoint_url) as file:
            settings = context.settings
            return video, decision, probe(file, video.uri, settings.execution.segment_seconds, settings.limits)
    except PosebatchError as error:
        return video, decision, error


def _look_text(looked: VideoPlan | PosebatchError | None) -> str:
    if looked is None:
        return ""
    if isinstance(looked, PosebatchError):
        return f"\n             will fail: {looked}"
    info = looked.info
    return (
        f"  {info.codec} {info.width}x{info.height}, {duration_text(info.duration_s)}, {len(looked.segments)} segments"
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
