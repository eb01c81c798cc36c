"""The command ``models compare``."""

from __future__ import annotations

import argparse
from typing import Any, Final

from posebatch.cli.parser import add_command
from posebatch.cli.run import add_option
from posebatch.core.redaction import visible
from posebatch.core.scripts import EXIT_OK
from posebatch.core.settings import options
from posebatch.run.planning.inputs import list_inputs, parse_inputs

OPTIONS: Final = ("detector", "precision", "device", "engine", "endpoint_url")
"""Settings of both sides."""


def add_models_compare(actions: Any) -> None:
    """Add the action ``compare``."""
    parser = add_command(
        actions, "compare", compare_command, "how far joints move from one network to another, and what that costs"
    )
    parser.epilog = f"example: {parser.prog} embedded balanced clips/ --stride 10 --report comparison"
    for name in ("old", "new"):
        parser.add_argument(name, metavar=name.upper(), help="a preset, or the name or file of a pose network")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="file, folder, glob or s3://bucket/key-or-prefix")
    parser.add_argument("--frames", type=_positive, metavar="N", help="take only the first N frames of each video")
    parser.add_argument("--stride", type=_positive, default=1, metavar="N", help="take every N-th frame (default: 1)")
    parser.add_argument("--threads", type=_positive, default=1, metavar="N", help="of the networks (default: 1)")
    parser.add_argument("--report", metavar="URI", help="folder or s3://bucket/prefix for report.html, with pictures")
    for item in options():
        if item.name in OPTIONS:
            add_option(parser, item)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def compare_command(chosen: argparse.Namespace) -> int:
    """Run ``posebatch models compare``; returns the exit code."""
    from posebatch.evaluation.model_comparison import (  # noqa: PLC0415 - loads torch, which takes seconds
        compare_models,
        comparison_lines,
        model_settings,
    )
    from posebatch.evaluation.model_report import check_folder, write_report  # noqa: PLC0415

    given = {name: value for name, value in vars(chosen).items() if name in OPTIONS}
    names = (chosen.old, chosen.new)
    settings = model_settings(*names, given)
    selection = settings[0].selection
    listing = list_inputs(parse_inputs(chosen.inputs, selection.endpoint_url), selection)
    videos = [video.uri for video in listing.videos]
    if chosen.report:
        check_folder(chosen.report)
    comparison = compare_models(names, settings, videos, chosen.stride, chosen.frames, chosen.threads)
    print("\n".join(map(visible, comparison_lines(comparison))))
    if chosen.report:
        print(f"report {write_report(comparison, chosen.report, selection.endpoint_url)}")
    return EXIT_OK
