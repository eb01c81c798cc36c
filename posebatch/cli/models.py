"""The command ``models``: list, download, compare and convert networks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from posebatch.cli.models_compare import add_models_compare
from posebatch.cli.parser import Parser, add_command
from posebatch.core.presets import PRESETS
from posebatch.core.scripts import EXIT_OK
from posebatch.models.weights.cache import fetch_published
from posebatch.models.weights.listing import ModelRow, list_models, models_table
from posebatch.models.weights.names import EMBEDDED, published_file
from posebatch.storage.open import open_store


def add_models(commands: Any) -> None:
    """Add the command ``models`` and its actions."""
    models = add_command(
        commands, "models", models_command, "list detectors and pose networks; download, convert or compare networks"
    )
    models.add_argument(
        "--benchmark", action="store_true", help="measure the speed of each network here, with one thread"
    )
    actions = models.add_subparsers(metavar="ACTION", parser_class=Parser)
    fetch = add_command(
        actions, "fetch", fetch_command, "download weights into the cache of this node, or into a mirror"
    )
    fetch.add_argument("names", nargs="+", metavar="NAME", help="a network, a backbone (resnet50) or a preset")
    fetch.add_argument("--to", metavar="URI", help="folder or s3://bucket/prefix to fill as a mirror for other nodes")
    fetch.add_argument("--endpoint-url", metavar="URL", help="URL of an S3-compatible store to use instead of AWS")
    add_models_compare(actions)
    converting = add_command(
        actions, "convert", convert_command, "convert weights of another project to a posebatch weight file"
    )
    converting.add_argument("source", metavar="SRC", help="name, path or s3:// URI of a pose network's weights")
    converting.add_argument("target", metavar="DST.safetensors")
    converting.add_argument("--name", help="name of the network (default: the name of the file)")
    converting.add_argument(
        "--input-size",
        type=_width_x_height,
        metavar="WxH",
        help="input size in pixels (default: from a known name)",
    )
    converting.add_argument(
        "--channel-order", choices=("RGB", "BGR"), help="channel order of the training images (default: by the layout)"
    )


def _width_x_height(text: str) -> tuple[int, int]:
    width, height = (int(side) for side in text.split("x"))
    return width, height


def models_command(chosen: argparse.Namespace) -> int:
    """Run ``posebatch models``; returns the exit code."""
    rows = list_models()
    print(models_table(rows, _speeds(rows) if chosen.benchmark else {}))
    return EXIT_OK


def _speeds(rows: list[ModelRow]) -> dict[str, str]:
    from posebatch.pose.network_speed import measure_speeds  # noqa: PLC0415 - loads torch, which takes seconds

    return dict(measure_speeds(rows))


def fetch_command(chosen: argparse.Namespace) -> int:
    """Run ``posebatch models fetch``; returns the exit code."""
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
    """Run ``posebatch models convert``; returns the exit code."""
    from posebatch.models.weights.convert import convert  # noqa: PLC0415 - loads torch, which takes seconds

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
