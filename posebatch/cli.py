"""The commands."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, NoReturn

from posebatch.commits import read_record, record_key
from posebatch.errors import OutputError, PosebatchError, UsageError
from posebatch.inputs import Input, Survey, check_apart, list_videos, parse_inputs, read_input_list, survey
from posebatch.models.weights import list_models, resolve
from posebatch.plan import Action, Decision, RunContext, decide
from posebatch.progress import Progress, Tally, duration_text
from posebatch.runner import Outcome, Runner
from posebatch.runs import RunFolder, last_summary, new_run_id
from posebatch.settings import Option, Settings, nearest, options, read_config, settings_from
from posebatch.storage import Store, open_source, open_store
from posebatch.types import SourceVideo, VideoPlan
from posebatch.verify import verify
from posebatch.version import __version__

EXIT_OK, EXIT_CANNOT_GO_ON, EXIT_USAGE, EXIT_SOME_FAILED = 0, 1, 2, 3

PROBE_THREADS = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code: 0 done, 3 done but some videos failed, 2 usage, 1 could not go on."""
    parser = build_parser()
    try:
        chosen = parser.parse_args(arguments)
        return int(chosen.command(chosen))
    except UsageError as error:
        return _complain(error, EXIT_USAGE)
    except PosebatchError as error:
        return _complain(error, EXIT_CANNOT_GO_ON)
    except BrokenPipeError:  # the reader of our output has gone, as in `posebatch plan ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        return _complain(PosebatchError("stopped"), EXIT_CANNOT_GO_ON)


def _complain(error: PosebatchError, exit_code: int) -> int:
    print(f"posebatch: {error}", file=sys.stderr)
    return exit_code


class _Parser(argparse.ArgumentParser):
    """An argument parser that knows the nearest flag to a mistyped one."""

    def error(self, message: str) -> NoReturn:
        flags = [flag for action in self._actions for flag in action.option_strings]
        unknown = message.removeprefix("unrecognized arguments: ").split()
        hint = nearest(unknown[0].split("=")[0], flags) if message.startswith("unrecognized arguments: -") else ""
        raise UsageError(f"{message}{hint}\n{self.format_usage().strip()}")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        chosen, unknown = self.parse_known_args(args, namespace)
        if unknown:
            used = getattr(chosen, "parser", self)
            used.error(f"unrecognized arguments: {' '.join(unknown)}")
        return chosen


def build_parser() -> argparse.ArgumentParser:
    """The command line of all commands."""
    parser = _Parser(
        prog="posebatch", description="Turn an archive of videos into tables of human poses.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"posebatch {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    _add_run(commands, "run", run_command, "do the job: publish the poses of every video")
    _add_run(commands, "plan", plan_command, "dry run: what would be done, what is done, what failed and why")
    checking = _add(commands, "verify", verify_command, "prove a dataset: every row counted, nothing doubled or lost")
    checking.add_argument("--output", required=True, metavar="URI", help="the output to check")
    checking.add_argument("--endpoint-url", metavar="URL", help="S3-compatible store to talk to, instead of AWS")
    _add(commands, "models", models_command, "list detectors and pose networks")
    demo = _add(commands, "demo", demo_command, "run the job on a sample video, or on one of yours")
    demo.add_argument("video", nargs="?", metavar="VIDEO", help="file, folder or s3:// URI instead of the sample")
    demo.add_argument("--output", default="demo", metavar="URI", help="where to put the results (default: demo)")
    return parser


def _add(commands: Any, name: str, command: Any, help_text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=help_text, allow_abbrev=False
    )
    parser.set_defaults(command=command, parser=parser)
    return parser


def _add_run(commands: Any, name: str, command: Any, help_text: str) -> None:
    parser = _add(commands, name, command, help_text)
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="file, folder, glob, s3://bucket/key-or-prefix")
    parser.add_argument("--inputs-from", metavar="FILE", help="more inputs, one a line")
    parser.add_argument("--output", required=True, metavar="URI", help="folder or s3://bucket/prefix of the dataset")
    parser.add_argument("--config", metavar="FILE.yaml", help="settings by the names of these flags; flags win")
    for item in options():
        _add_option(parser, item)


def _add_option(parser: argparse.ArgumentParser, item: Option) -> None:
    default = "" if item.default in (None, (), False) else f" (default: {item.default})"
    common: dict[str, Any] = {"dest": item.name, "default": argparse.SUPPRESS, "help": item.help + default}
    if item.value_type is bool:
        parser.add_argument(item.flag, action=argparse.BooleanOptionalAction, **common)
        return
    # choices and limits are checked by the settings, which say more when they are not met
    metavar = item.metavar or ("{" + ",".join(item.choices) + "}" if item.choices else item.name.upper())
    action = "append" if item.repeatable else "store"
    parser.add_argument(item.flag, action=action, type=item.value_type, metavar=metavar, **common)


def _settings(chosen: argparse.Namespace) -> Settings:
    names = {item.name for item in options()}
    from_file = settings_from(read_config(chosen.config), f"--config {chosen.config}").flat() if chosen.config else {}
    from_flags = {name: value for name, value in vars(chosen).items() if name in names}
    return settings_from({**from_file, **from_flags}, "command line")


# --- run ---------------------------------------------------------------------------------------------------------


def run_command(chosen: argparse.Namespace) -> int:
    """``posebatch run``."""
    named = _named_inputs(chosen)
    return run_job(named, chosen.output, _settings(chosen))


def _named_inputs(chosen: argparse.Namespace) -> list[str]:
    return [*chosen.inputs, *(read_input_list(chosen.inputs_from) if chosen.inputs_from else [])]


def run_job(named: list[str], output: str, settings: Settings) -> int:
    """The main job, from the named inputs to the exit code."""
    context, store, inputs, found = _prepare(named, output, settings)
    _refuse_existing(inputs, store, context)
    folder = RunFolder(store, context)
    folder.open(named)
    print(f"{found.videos} videos, {found.size_bytes / 1e6:.1f} MB -> {store.root}  (run {context.run_id})")
    print(f"detector {context.detector}\npose     {context.pose}", flush=True)
    progress = Progress(Tally(videos_total=found.videos, bytes_total=found.size_bytes))
    outcome = None
    try:
        outcome = _run_on_ray(context, store, list_videos(inputs, settings.selection), progress, folder)
    finally:
        progress.close()
        folder.close(_summary(context, progress, outcome))
    _print_outcome(outcome, store, folder, settings)
    return outcome.exit_code


def _prepare(named: list[str], output: str, settings: Settings) -> tuple[RunContext, Store, list[Input], Survey]:
    """Everything that can be refused is refused here, before any work begins."""
    endpoint_url = settings.selection.endpoint_url
    detector = resolve("detector", settings.estimator.detector_name)
    pose = resolve("pose", settings.estimator.pose_name)
    store = open_store(output, endpoint_url)
    inputs = parse_inputs(named, endpoint_url)
    check_apart(inputs, store.root)
    found = survey(inputs, settings.selection)
    context = RunContext(new_run_id(), settings, store.root, detector.identity, pose.identity)
    return context, store, inputs, found


def _refuse_existing(inputs: list[Input], store: Store, context: RunContext) -> None:
    if context.settings.selection.on_existing != "error":
        return
    for video in list_videos(inputs, context.settings.selection):
        if read_record(store, video.output_path) is not None:
            raise OutputError(f"{store.uri(record_key(video.output_path))} exists already (--on-existing error)")


def _run_on_ray(context: RunContext, store: Store, videos: Any, progress: Progress, folder: RunFolder) -> Outcome:
    # Ray is loaded only by the commands that need it
    from posebatch.cluster import RayPool, choose_device, choose_workers, connected  # noqa: PLC0415

    execution = context.settings.execution
    with connected(execution):
        device = choose_device(execution)
        pool = RayPool(context, choose_workers(execution, device), device)
        runner = Runner(context, store, pool, progress, folder.add)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda caught, _: runner.stop(signal.Signals(caught).name))
        try:
            return runner.run(videos)
        finally:
            pool.close()


def _summary(context: RunContext, progress: Progress, outcome: Outcome | None) -> dict[str, Any]:
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
        "failures": [{"video": video, "reason": reason} for video, reason in outcome.failures] if outcome else [],
    }


def _print_outcome(outcome: Outcome, store: Store, folder: RunFolder, settings: Settings) -> None:
    tally = outcome.tally
    print(
        f"\n{tally.published} published, {tally.up_to_date} up to date, {tally.failed} failed, "
        f"{tally.quarantined} failed before; {tally.frames} frames, {tally.persons} persons "
        f"in {duration_text(outcome.elapsed_s)}"
    )
    for video, reason in outcome.failures:
        print(f"  failed: {reason if video in reason else f'{video}: {reason}'}")
    print(f"poses    {store.uri('poses/')}\nframes   {store.uri('frames/')}\nvideos   {store.uri('videos/')}")
    if settings.preview.wanted:
        print(f"previews {store.uri('previews/')}")
    print(f"this run {store.uri(folder.key)}/", flush=True)


# --- plan --------------------------------------------------------------------------------------------------------


def plan_command(chosen: argparse.Namespace) -> int:
    """``posebatch plan``: nothing is written."""
    settings = _settings(chosen)
    context, store, inputs, _ = _prepare(_named_inputs(chosen), chosen.output, settings)
    counts = dict.fromkeys(Action, 0)
    seconds_to_do = frames_to_do = 0.0
    videos = list_videos(inputs, settings.selection)
    with ThreadPoolExecutor(PROBE_THREADS) as threads:
        while chunk := list(islice(videos, 4 * PROBE_THREADS)):
            for video, decision, looked in threads.map(lambda one: _look(one, store, context), chunk):
                counts[decision.action] += 1
                print(f"{decision.action.value:<12} {video.uri}  ({decision.reason}){_look_text(looked)}")
                if isinstance(looked, VideoPlan):
                    seconds_to_do += looked.info.duration_s
                    frames_to_do += _frames_to_process(looked, settings)
    print(f"\n{', '.join(f'{count} {action.value}' for action, count in counts.items() if count)}")
    print(
        f"{seconds_to_do / 3600:.2f} hours of video to do, {frames_to_do:.0f} frames; {_estimate(store, context, frames_to_do)}"
    )
    return EXIT_OK


def _look(
    video: SourceVideo, store: Store, context: RunContext
) -> tuple[SourceVideo, Decision, VideoPlan | PosebatchError | None]:
    from posebatch.video import probe  # noqa: PLC0415

    decision = decide(video, read_record(store, video.output_path), context)
    if decision.action is not Action.COMPUTE:
        return video, decision, None
    try:
        with open_source(video.uri, video.etag, context.endpoint_url) as file:
            return video, decision, probe(file, video.uri, context.settings.execution.segment_seconds)
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


# --- the other commands ------------------------------------------------------------------------------------------


def verify_command(chosen: argparse.Namespace) -> int:
    """``posebatch verify``."""
    verdict = verify(open_store(chosen.output, chosen.endpoint_url))
    for problem in verdict.problems:
        print(f"problem: {problem}")
    state = f"{len(verdict.problems)} problems" if verdict.problems else "clean"
    print(
        f"{state}: {verdict.videos} videos ({verdict.failed} failed), {verdict.frames} frames, {verdict.persons} persons"
    )
    return EXIT_SOME_FAILED if verdict.problems else EXIT_OK


def models_command(_: argparse.Namespace) -> int:
    """``posebatch models``."""
    for row in list_models():
        print(row)
    return EXIT_OK


def demo_command(chosen: argparse.Namespace) -> int:
    """``posebatch demo``."""
    settings = settings_from({"preview": ["gif"]})
    return run_job([chosen.video], chosen.output, settings)
