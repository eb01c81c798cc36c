"""Train the larger embedded pose network in the background. The training takes days and survives kills and restarts.

    python jobs/train_embedded.py start --data persons.parquet --labels labels.parquet --backbone features.safetensors \
        --validate validation.parquet --output FOLDER      start it in the background
    python jobs/train_embedded.py start --output FOLDER    resume after a kill or a restart of the machine
    python jobs/train_embedded.py status --output FOLDER   print samples, loss and accuracy
    python jobs/train_embedded.py export --output FOLDER   write the averaged weights of the last checkpoint

The background process has the lowest priority and one thread.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from posebatch.core.errors import UsageError
from posebatch.core.extras import need
from posebatch.core.scripts import run_script
from posebatch.models.networks.engines import resolve_device
from posebatch.training.background import (
    LOG_NAME,
    read_status,
    running_process,
    sole_process,
    start_background,
    status_text,
)
from posebatch.training.embedded import (
    STAGES,
    TrainingFiles,
    export_weights,
    recipe_of_stage,
    remember_files,
    train_stages,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 2 usage, 1 other errors."""
    chosen = build_parser().parse_args(arguments)
    return run_script("train_embedded", lambda: chosen.command(chosen))


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, text in (
        ("start", start, "start or resume in the background"),
        ("run", run, "start or resume in this process"),
        ("status", status, "print samples, loss and accuracy"),
        ("export", export, "write the averaged weights of the last checkpoint"),
    ):
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(command=command)
        sub.add_argument(
            "--output", required=True, type=Path, metavar="FOLDER", help="checkpoints, history, log, result"
        )
        if name in ("start", "run"):
            sub.add_argument("--data", type=Path, metavar="FILE", help="Parquet of persons; known when resuming")
            sub.add_argument("--labels", type=Path, metavar="FILE", help="Parquet of new labels for them")
            sub.add_argument("--backbone", type=Path, metavar="FILE", help="weights of the backbone")
            sub.add_argument("--validate", type=Path, metavar="FILE", help="labelled images to measure on")
            sub.add_argument("--device", default="cpu", choices=("auto", "cpu", "cuda"), help="default: cpu")
    return parser


def start(chosen: argparse.Namespace) -> None:
    """Start or resume in the background."""
    need("matplotlib", "pycocotools")
    remember_files(chosen.output, _files(chosen))
    process = running_process(chosen.output)
    if process is None:
        command = [str(Path(__file__).resolve()), "run", "--output", str(chosen.output.resolve())]
        process = start_background([*command, "--device", chosen.device], chosen.output)
    print(f"process {process} trains; it writes to {chosen.output / LOG_NAME}")


def run(chosen: argparse.Namespace) -> None:
    """Start or resume in this process."""
    need("matplotlib", "pycocotools")
    files = remember_files(chosen.output, _files(chosen))
    with sole_process(chosen.output):
        train_stages(files, chosen.output, resolve_device(chosen.device))


def status(chosen: argparse.Namespace) -> None:
    """Print samples, loss and accuracy of each stage."""
    files = remember_files(chosen.output, None)
    statuses = [
        read_status(chosen.output, stage, recipe_of_stage(stage, files, chosen.output).loop.batch_size)
        for stage in STAGES
    ]
    print(status_text(running_process(chosen.output), [status for status in statuses if status is not None]))


def export(chosen: argparse.Namespace) -> None:
    """Write the averaged weights of the last checkpoint."""
    print(export_weights(remember_files(chosen.output, None), chosen.output))


def _files(chosen: argparse.Namespace) -> TrainingFiles | None:
    if chosen.data is None and chosen.backbone is None:
        return None
    if chosen.data is None or chosen.backbone is None:
        raise UsageError("--data and --backbone go together; leave both out to resume")
    return TrainingFiles(chosen.data, chosen.labels, chosen.backbone, chosen.validate)


if __name__ == "__main__":
    sys.exit(main())
