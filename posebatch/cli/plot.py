"""The command ``plot``."""

from __future__ import annotations

import argparse
from pathlib import Path, PurePosixPath
from typing import Any

from posebatch.cli.parser import add_command
from posebatch.core.errors import OutputError, UsageError
from posebatch.core.scripts import EXIT_OK
from posebatch.dataset.performances import parse_wanted
from posebatch.report.plots import plot_angles


def add_plot(commands: Any) -> None:
    """Add the command ``plot``."""
    parser = add_command(commands, "plot", plot_command, "plot the angle of a joint over time, as PNG or SVG")
    parser.epilog = "example: posebatch plot clip.mp4 --output out --joint left_knee right_knee --to knees.svg"
    parser.add_argument("video", metavar="VIDEO", help="VIDEO[#track][@from-to], in seconds")
    parser.add_argument("--output", required=True, metavar="URI", help="the output that holds the video")
    parser.add_argument("--joint", nargs="+", default=["left_knee"], metavar="ANGLE", help="default: left_knee")
    parser.add_argument("--track", type=int, metavar="N", help="the track (default: the main person)")
    parser.add_argument("--to", metavar="FILE", help="a .png or .svg file (default: VIDEO-ANGLE.png here)")
    parser.add_argument("--endpoint-url", metavar="URL", help="URL of an S3-compatible store to use instead of AWS")


def plot_command(chosen: argparse.Namespace) -> int:
    """Run ``posebatch plot``; returns the exit code."""
    name = PurePosixPath(parse_wanted(chosen.video).video).stem
    path = Path(chosen.to or f"{name}-{'-'.join(chosen.joint)}.png")
    if path.suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"--to {path}: the name must end in .png or .svg")
    figure = plot_angles(chosen.output, chosen.video, chosen.joint, chosen.track, chosen.endpoint_url)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise OutputError(f"--to {path} cannot be written: {error}") from error
    print(f"look at  {path.resolve()}")
    return EXIT_OK
