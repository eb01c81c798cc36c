"""The command line of ``jobs/evaluate_tracks.py``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from posebatch.core.errors import UsageError
from posebatch.core.motion_settings import MotionSettings
from posebatch.core.scripts import run_script
from posebatch.evaluation.other_trackers import OTHER_TRACKERS
from posebatch.evaluation.track_evaluation import STORED, TrackQuestion, evaluate_clips


def evaluate_tracks(arguments: Sequence[str] | None, description: str | None) -> int:
    """Score tracks against true identities, print a table, and return the exit code."""
    chosen = _parser(description).parse_args(arguments)
    return run_script("evaluate_tracks", lambda: _evaluate(chosen))


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--truth", required=True, nargs="+", type=Path, metavar="CSV", help="files of true identities")
    parser.add_argument("--output", required=True, metavar="URI", help="output of a run on the videos")
    parser.add_argument(
        "--linker",
        choices=(STORED, "global", "greedy-oks", *OTHER_TRACKERS),
        default=STORED,
        help="stored: the output's tracks (default); others: link its poses anew; bytetrack, oc-sort: those of the "
        "library trackers (extra trackers)",
    )
    parser.add_argument(
        "--max-gap-seconds",
        type=float,
        default=MotionSettings.max_gap_seconds,
        metavar="S",
        help=f"longest gap of a track (default: {MotionSettings.max_gap_seconds})",
    )
    parser.add_argument(
        "--kpt-thr", type=float, default=0.2, metavar="T", help="joints that score above count (default: 0.2)"
    )
    parser.add_argument(
        "--true-boxes", action="store_true", help="link true boxes, 10 %% left out, with 3 %% noise, and no joints"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of --true-boxes (default: 0)")
    return parser


def _evaluate(chosen: argparse.Namespace) -> None:
    if chosen.true_boxes and chosen.linker == STORED:
        raise UsageError("--true-boxes needs --linker global or greedy-oks")
    question = TrackQuestion(
        output=chosen.output,
        linker=chosen.linker,
        max_gap_seconds=chosen.max_gap_seconds,
        kpt_thr=chosen.kpt_thr,
        true_boxes=chosen.true_boxes,
        seed=chosen.seed,
    )
    print(evaluate_clips(chosen.truth, question))
