"""The command ``export``."""

from __future__ import annotations

import argparse
import math
from typing import Any

from posebatch.cli.parser import add_command
from posebatch.core.errors import UsageError
from posebatch.core.redaction import visible
from posebatch.core.scripts import EXIT_OK, EXIT_SOME_FAILED
from posebatch.core.wording import counted
from posebatch.dataset.export.formats import FORMATS
from posebatch.dataset.export.reading import MotionChoice, TrackChoice
from posebatch.dataset.export.video_motion import ASSUMED_HEIGHT_CM, BodyHeight
from posebatch.dataset.export.whole_output import export_output


def add_export(commands: Any) -> None:
    """Add the command ``export``."""
    parser = add_command(
        commands, "export", export_command, "write tracks and motion as files of other programs: OpenSim, SLEAP, Excel"
    )
    parser.epilog = f"example: {parser.prog} --output out --format trc --track main --height-cm 178 --to opensim"
    parser.add_argument("--output", required=True, metavar="URI", help="the output that holds tracks and motion")
    parser.add_argument("--format", required=True, metavar="FORMAT", help=f"one of {', '.join(FORMATS)}")
    parser.add_argument(
        "--match", default="*", metavar="GLOB", help="only videos whose path in the archive matches (default: *)"
    )
    parser.add_argument("--to", required=True, metavar="FOLDER", help="folder or s3:// URI to write to")
    parser.add_argument(
        "--track", default="all", metavar="N", help="id of a track, or main, or all (default: all)", type=_track
    )
    parser.add_argument(
        "--height-cm",
        type=_height,
        metavar="CM",
        help=f"height of the person, for metres in trc and c3d (default: {ASSUMED_HEIGHT_CM:g}, assumed)",
    )
    joints = parser.add_mutually_exclusive_group()
    joints.add_argument("--smoothed", action="store_true", help="smoothed joints (default)")
    joints.add_argument("--raw", action="store_true", help="joints as the networks found them, without smoothing")
    parser.add_argument("--endpoint-url", metavar="URL", help="URL of an S3-compatible store to use instead of AWS")


def export_command(chosen: argparse.Namespace) -> int:
    """Run ``posebatch export``; returns the exit code: 3 if a video could not be exported."""
    body = BodyHeight() if chosen.height_cm is None else BodyHeight(chosen.height_cm, is_assumed=False)
    choice = MotionChoice(chosen.track, chosen.raw, body)
    videos = files = incomplete = 0
    for video in export_output(chosen.output, chosen.to, chosen.format, chosen.match, choice, chosen.endpoint_url):
        for address in video.files:
            print(visible(address))
        for note in video.notes:
            print(visible(f"note: {video.output_path}: {note}"))
        videos, files, incomplete = videos + 1, files + len(video.files), incomplete + video.is_incomplete
    state = f"; incomplete: {counted(incomplete, 'video')}, see the notes" if incomplete else ""
    print(f"{counted(files, 'file')} of {counted(videos, 'video')}{state}")
    return EXIT_SOME_FAILED if incomplete else EXIT_OK


def _track(text: str) -> TrackChoice:
    if text == "all":
        return "all"
    if text == "main":
        return "main"
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"--track {text}: give the id of a track, as in --track 0, or main, or all")
    return int(text)


def _height(text: str) -> float:
    """Centimetres. A person of 1.78 or 1780 cm is a mistake of units."""
    try:
        height_cm = float(text)
    except ValueError:
        height_cm = math.nan
    if not 30 <= height_cm <= 280:
        raise UsageError(f"--height-cm {text}: give the height of the person in centimetres, 30 to 280")
    return height_cm
