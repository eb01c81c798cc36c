"""The command `models`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from posebatch.cli.parser import EXIT_OK, Parser, add_command
from posebatch.core.settings import PRESETS
from posebatch.models.weights.cache import fetch_published
from posebatch.models.weights.listing import ModelRow, list_models, models_table
from posebatch.models.weights.names import EMBEDDED, published_file
from posebatch.storage.open import open_store


def add_models(commands: Any) -> None:
    """Add the command ``models`` with its own commands."""
    models = add_command(
        commands, "models", models_command, "list detectors and pose networks, fetch and convert weights"
    )
    models.add_argument("--benchmark", action="store_true", help="measure how fast each network is here, on one thread")
    actions = models.add_subparsers(metavar="ACTION", parser_class=Parser)
    fetch = add_command(
        actions, "fetch", fetch_command, "download weights, into the cache of this node or into a mirror"
    )
    fetch.add_argument("names", nargs="+", metavar="NAME", help="a network, a backbone (resnet50), or a preset")
    fetch.add_argument("--to", metavar="URI", help="folder or s3://bucket/prefix that other nodes use as a mirror")
    fetch.add_argument("--endpoint-url", metavar="URL", help="S3-compatible store to talk to, instead of AWS")
    converting = add_command(
        actions, "convert", convert_command, "write the weights of another layout as a file of ours"
    )
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


def models_command(chosen: argparse.Namespace) -> int:
    """``posebatch models``."""
    rows = list_models()
    print(models_table(rows, _speeds(rows) if chosen.benchmark else {}))
    return EXIT_OK


def _speeds(rows: list[ModelRow]) -> dict[str, str]:
    from posebatch.pose.network_speed import measure_speeds  # noqa: PLC0415 - loads torch, which takes seconds

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
