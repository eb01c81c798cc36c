"""The command ``compare``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from posebatch.cli.parser import add_command
from posebatch.core.errors import OutputError, UsageError
from posebatch.core.extras import need
from posebatch.core.options import nearest
from posebatch.core.redaction import visible
from posebatch.core.scripts import EXIT_OK
from posebatch.core.text_table import text_table
from posebatch.motion.comparing.comparison import DEFAULT_ANGLES, Comparison
from posebatch.motion.movement.motion_block import ANGLE_NAMES

if TYPE_CHECKING:
    from posebatch.report.comparison import ComparisonFiles

HTML_NAME: Final = "comparison.html"


def add_compare(commands: Any) -> None:
    """Add the command ``compare``."""
    parser = add_command(
        commands, "compare", compare_command, "compare the movement of two performances, phase by phase"
    )
    parser.epilog = "example: posebatch compare coach.mp4@2-8 learner.mp4#1 --output out --to comparison"
    performance = "VIDEO[#track][@from-to], in seconds; without a track the main person"
    parser.add_argument("a", metavar="A", help=f"the reference: {performance}")
    parser.add_argument("b", metavar="B", help="the performance to compare with it, named in the same way")
    parser.add_argument("--output", required=True, metavar="URI", help="the output that holds A and B")
    parser.add_argument("--output-b", metavar="URI", help="the output that holds B, if it is another one")
    parser.add_argument(
        "--angles",
        nargs="+",
        default=list(DEFAULT_ANGLES),
        metavar="ANGLE",
        help="after A and B: angles to align and compare (default: knees, hips, shoulders, elbows, trunk)",
    )
    parser.add_argument("--mirror", choices=("A", "B"), help="exchange left and right of one of them")
    parser.add_argument("--reference", metavar="GLOB", help="videos of --output that form a band together with A")
    parser.add_argument("--to", default="comparison", metavar="FOLDER", help="local folder (default: comparison)")
    parser.add_argument("--endpoint-url", metavar="URL", help="URL of an S3-compatible store to use instead of AWS")


def compare_command(chosen: argparse.Namespace) -> int:
    """Run ``posebatch compare``; returns the exit code."""
    for name in chosen.angles:
        if name not in ANGLE_NAMES:
            raise UsageError(f"--angles: no angle is called {name!r}{nearest(name, ANGLE_NAMES)}")
    need("dtaidistance")
    from posebatch.report.comparison import ComparisonRequest, comparison_files  # noqa: PLC0415 - loads templates, codecs

    request = ComparisonRequest(
        chosen.a,
        chosen.b,
        chosen.output,
        chosen.output_b,
        tuple(dict.fromkeys(chosen.angles)),
        chosen.mirror,
        chosen.reference,
        chosen.endpoint_url,
    )
    files = comparison_files(request)
    for note in files.notes:
        print(f"note: {visible(note)}", file=sys.stderr)
    _write(Path(chosen.to), files)
    _print_table(files.comparison)
    print(f"look at  {Path(chosen.to, HTML_NAME).resolve()}")
    return EXIT_OK


def _write(folder: Path, files: ComparisonFiles) -> None:
    contents = {
        HTML_NAME: files.html.encode(),
        "comparison.gif": files.gif,
        "comparison.mp4": files.mp4,
        "comparison.parquet": files.parquet,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise OutputError(f"--to {folder} cannot be written: {error}") from error


def _print_table(comparison: Comparison) -> None:
    rows = []
    for number, name in enumerate(comparison.angle_names):
        difference = comparison.difference[:, number]
        known = difference[~np.isnan(difference)]
        largest = int(np.nanargmax(np.abs(difference)))
        rows.append(
            (
                name,
                f"{np.sqrt(np.mean(known**2)):.1f}",
                f"{difference[largest]:+.1f}",
                f"{comparison.phase[largest]:.0%}",
                f"{len(known) / len(difference):.0%}",
            )
        )
    print(text_table(["angle", "rms °", "largest B - A °", "at", "known in both"], rows))
    if comparison.left_out:
        print(f"left out, hardly known in both: {', '.join(comparison.left_out)}")
