"""The command ``show``."""

from __future__ import annotations

import argparse
from pathlib import PurePosixPath
from typing import Any, Final

from posebatch.cli.parser import add_command
from posebatch.cli.run import add_option, flag_values, refuse_signed
from posebatch.core.errors import UsageError
from posebatch.core.scripts import EXIT_OK
from posebatch.core.settings import options, settings_from

OTHERS: Final = ("device", "video_track", "endpoint_url", "request_payer")
"""Options besides those of the networks."""


def add_show(commands: Any) -> None:
    """Add the command ``show``."""
    parser = add_command(
        commands, "show", show_command, "draw what the networks see at one instant: boxes, crops, heatmaps, joints"
    )
    parser.epilog = f"example: {parser.prog} clip.mp4 --t 12.4 --to instant.png"
    parser.add_argument("video", metavar="VIDEO", help="file, s3://bucket/key or ARCHIVE!/MEMBER")
    instant = parser.add_mutually_exclusive_group(required=True)
    instant.add_argument("--t", type=float, metavar="S", help="time in the video as in the column time_s, seconds")
    instant.add_argument("--frame", type=int, metavar="N", help="number of the frame as in the column frame_index")
    parser.add_argument("--to", metavar="FILE", help="PNG to write (default: named like the video, in this folder)")
    for item in options():
        if item.group == "estimator" or item.name in OTHERS:
            add_option(parser, item)


def show_command(chosen: argparse.Namespace) -> int:
    """Run ``posebatch show``; returns the exit code."""
    settings = settings_from(flag_values(chosen), "command line")
    refuse_signed([chosen.video], "download the video, and name the file")
    target = chosen.to or f"{PurePosixPath(chosen.video).stem}_{_instant_name(chosen)}.png"
    if not target.endswith(".png"):
        raise UsageError(f"--to {target}: the name must end in .png")
    from posebatch.report.explain import explain  # noqa: PLC0415 - loads torch, which takes seconds
    from posebatch.video.instant import Instant  # noqa: PLC0415

    explanation = explain(
        chosen.video,
        Instant(chosen.t, chosen.frame),
        settings.estimator,
        settings.execution.device,
        settings.sampling.video_track,
        settings.selection.endpoint_url,
        settings.selection.request_payer or "",
    )
    print(*explanation.lines, sep="\n")
    _write(explanation.picture, target)
    print(f"picture {target}")
    return EXIT_OK


def _instant_name(chosen: argparse.Namespace) -> str:
    return f"frame{chosen.frame}" if chosen.t is None else f"{chosen.t:g}s"


def _write(picture: Any, target: str) -> None:
    try:
        picture.save(target)
    except OSError as error:
        raise UsageError(f"--to {target}: it cannot be written ({error.strerror or error})") from error
