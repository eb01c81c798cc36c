"""The commands."""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

from posebatch.demo import run_demo
from posebatch.dryrun import dry_run
from posebatch.errors import PosebatchError, RunAbortedError, UsageError
from posebatch.inputs import read_input_list
from posebatch.job import run_job
from posebatch.lease import held
from posebatch.models.download import fetch_published
from posebatch.models.listing import ModelRow, list_models, models_table
from posebatch.models.registry import EMBEDDED, published_file
from posebatch.progress import LOG_SECONDS
from posebatch.redaction import redacted, visible
from posebatch.runs import new_run_id
from posebatch.settings import PRESETS, Option, Settings, nearest, options, read_config, settings_from
from posebatch.storage import Store, is_s3, open_store
from posebatch.upkeep import DEFAULT_LIMIT_DAYS, SECONDS_OF_A_DAY, Leftover, Limit, leftovers, limit_of, take_away
from posebatch.verify import Verdict, verify
from posebatch.version import __version__

EXIT_OK, EXIT_CANNOT_GO_ON, EXIT_USAGE, EXIT_SOME_FAILED = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code: 0 done, 3 done but some videos failed, 2 usage, 1 could not go on."""
    parser = build_parser()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # no name of a file may end a run because a terminal lacks it
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
    except Exception:  # a bug; what its traceback quotes of a library's errors may hold credentials
        print(redacted(traceback.format_exc()), end="", file=sys.stderr)
        return EXIT_CANNOT_GO_ON


def _complain(error: PosebatchError, exit_code: int) -> int:
    print(f"posebatch: {visible(str(error))}", file=sys.stderr)
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
    checking.add_argument("--deep", action="store_true", help="read every byte: checksums, all values, metadata, GIFs")
    checking.add_argument("--endpoint-url", metavar="URL", help="S3-compatible store to talk to, instead of AWS")
    _add_gc(commands)
    _add_models(commands)
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


def _add_gc(commands: Any) -> None:
    parser = _add(commands, "gc", gc_command, "show what nobody needs any more in an output, or take it away")
    parser.add_argument("--output", required=True, metavar="URI", help="the output to tidy up")
    parser.add_argument(
        "--older-than-days",
        type=float,
        default=DEFAULT_LIMIT_DAYS,
        metavar="DAYS",
        help=f"leave alone what is younger; fractions will do, from an hour on (default: {DEFAULT_LIMIT_DAYS:g})",
    )
    parser.add_argument("--delete", action="store_true", help="take it away; otherwise it is only shown")
    parser.add_argument("--wait", action="store_true", help="where a run has the output: wait for its end")
    parser.add_argument("--endpoint-url", metavar="URL", help="S3-compatible store to talk to, instead of AWS")


def _add_models(commands: Any) -> None:
    models = _add(commands, "models", models_command, "list detectors and pose networks, fetch and convert weights")
    models.add_argument("--benchmark", action="store_true", help="measure how fast each network is here, on one thread")
    actions = models.add_subparsers(metavar="ACTION", parser_class=_Parser)
    fetch = _add(actions, "fetch", fetch_command, "download weights, into the cache of this node or into a mirror")
    fetch.add_argument("names", nargs="+", metavar="NAME", help="a network, a backbone (resnet50), or a preset")
    fetch.add_argument("--to", metavar="URI", help="folder or s3://bucket/prefix that other nodes use as a mirror")
    fetch.add_argument("--endpoint-url", metavar="URL", help="S3-compatible store to talk to, instead of AWS")
    converting = _add(actions, "convert", convert_command, "write the weights of another layout as a file of ours")
    converting.add_argument("source", metavar="SRC", help="name, path or s3:// URI of a pose network's weights")
    converting.add_argument("target", metavar="DST.safetensors")
    converting.add_argument("--name", help="what the network shall be called (default: as the file is)")
    converting.add_argument(
        "--input-size", type=_width_x_height, metavar="WxH", help="crop, in pixels, where no name says it"
    )
    converting.add_argument(
        "--channel-order", choices=("RGB", "BGR"), help="of the images it was trained on (default: by the layout)"
    )


def _width_x_height(text: str) -> tuple[int, int]:
    width, height = (int(side) for side in text.split("x"))
    return width, height


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
    from_file = read_config(chosen.config) if chosen.config else {}
    settings_from(from_file, f"--config {chosen.config}")  # so that what is wrong in the file is said of the file
    from_file = {str(key).replace("-", "_"): value for key, value in from_file.items()}
    from_flags = {name: value for name, value in vars(chosen).items() if name in names}
    return settings_from({**from_file, **from_flags}, "command line")


def run_command(chosen: argparse.Namespace) -> int:
    """``posebatch run``."""
    return run_job(_named_inputs(chosen), chosen.output, _settings(chosen))


def plan_command(chosen: argparse.Namespace) -> int:
    """``posebatch plan``."""
    dry_run(_named_inputs(chosen), chosen.output, _settings(chosen))
    return EXIT_OK


def _named_inputs(chosen: argparse.Namespace) -> list[str]:
    return [*chosen.inputs, *(read_input_list(chosen.inputs_from) if chosen.inputs_from else [])]


def verify_command(chosen: argparse.Namespace) -> int:
    """``posebatch verify``."""
    verdict = verify(open_store(chosen.output, chosen.endpoint_url), chosen.deep, _now_and_then(_say_how_far))
    for problem in verdict.problems:
        print(f"problem: {visible(problem)}")
    state = f"{len(verdict.problems)} problems" if verdict.problems else "clean"
    print(f"{state}: {verdict.videos} videos ({verdict.failed} failed), {verdict.frames} frames, ", end="")
    print(f"{verdict.persons} persons" + (f"; {_megabytes(verdict.bytes_read)} read" if chosen.deep else ""))
    if verdict.without_checksum:
        print(
            f"not proven: {verdict.without_checksum} objects have no checksum, an older version published them; they "
            "were read and checked, but only `posebatch run --on-existing overwrite` gives them one"
        )
    return EXIT_SOME_FAILED if verdict.problems else EXIT_OK


def _now_and_then(say: Callable[[Verdict], None]) -> Callable[[Verdict], None]:
    """The same, but it says nothing when it said something a moment ago."""
    said = time.monotonic()

    def maybe(verdict: Verdict) -> None:
        nonlocal said
        if time.monotonic() - said >= LOG_SECONDS:
            said = time.monotonic()
            say(verdict)

    return maybe


def _say_how_far(verdict: Verdict) -> None:
    read = f", {_megabytes(verdict.bytes_read)} read" if verdict.bytes_read else ""
    print(f"{verdict.videos} videos, {verdict.frames} frames so far{read}", file=sys.stderr, flush=True)


def gc_command(chosen: argparse.Namespace) -> int:
    """``posebatch gc``; what is removed is removed while no run has the output."""
    store = open_store(chosen.output, chosen.endpoint_url)
    limit = limit_of(store, chosen.older_than_days)
    lost: list[str] = []
    keeping_runs_out = held(store, f"gc-{new_run_id()}", chosen.wait, print, lost.append)
    with keeping_runs_out if chosen.delete else nullcontext():
        found, size_bytes = _collect(store, limit, chosen.delete, lost)
    if is_s3(store.root):
        print("not looked at: parts of uploads that were broken off; a lifecycle rule of the bucket removes those")
    dry = "" if chosen.delete or not found else "; nothing was removed, --delete does it"
    print(f"{found} objects, {_megabytes(size_bytes)} {'removed' if chosen.delete else 'to remove'}{dry}")
    return EXIT_OK


def _collect(store: Store, limit: Limit, delete: bool, lost: list[str]) -> tuple[int, int]:
    """Objects and bytes that are removed, or would be."""
    found = size_bytes = 0
    for leftover in leftovers(store, limit):
        if lost:
            raise RunAbortedError(f"stopped: {lost[0]}; the same command goes on from here")
        if delete and not take_away(store, leftover, limit):
            print(f"kept {leftover.key}: it is needed again, or has gone")
            continue
        print(f"{'removed' if delete else 'would remove'} {_leftover_text(leftover)}")
        found, size_bytes = found + leftover.objects, size_bytes + leftover.size_bytes
    return found, size_bytes


def _leftover_text(leftover: Leftover) -> str:
    many = f"{leftover.objects} objects, " if leftover.key.endswith("/") else ""
    days = leftover.age_s / SECONDS_OF_A_DAY
    return f"{leftover.key}  ({many}{_megabytes(leftover.size_bytes)}, {days:.1f} days old): {leftover.why}"


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"


def models_command(chosen: argparse.Namespace) -> int:
    """``posebatch models``."""
    rows = list_models()
    print(models_table(rows, _speeds(rows) if chosen.benchmark else {}))
    return EXIT_OK


def _speeds(rows: list[ModelRow]) -> dict[str, str]:
    from posebatch.models.benchmark import measure_speeds  # noqa: PLC0415 - loads torch, which takes seconds

    return dict(measure_speeds(rows))


def fetch_command(chosen: argparse.Namespace) -> int:
    """``posebatch models fetch``."""
    embedded = {name for names in EMBEDDED.values() for name in names}
    names = [part for name in chosen.names for part in PRESETS.get(name, (name,))]
    mirror = open_store(chosen.to, chosen.endpoint_url) if chosen.to else None
    for file in [published_file(name) for name in names if name not in embedded]:
        path = fetch_published(file)
        if mirror is not None:
            with path.open("rb") as content:
                mirror.put(file.file_name, content)
        print(path if mirror is None else mirror.uri(file.file_name))
    return EXIT_OK


def convert_command(chosen: argparse.Namespace) -> int:
    """``posebatch models convert``."""
    from posebatch.models.convert import convert  # noqa: PLC0415 - loads torch, which takes seconds

    record = convert(
        chosen.source,
        Path(chosen.target),
        name=chosen.name,
        input_size_wh=chosen.input_size,
        channel_order=chosen.channel_order,
    )
    width, height = record.input_size_wh
    print(f"{chosen.target}: {record.architecture}, input {width}x{height}, {record.channel_order}, {record.identity}")
    return EXIT_OK


def demo_command(chosen: argparse.Namespace) -> int:
    """``posebatch demo``."""
    return run_demo(chosen.video, chosen.output)
