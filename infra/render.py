"""Write the files of the nightly run from one file of values: ``python infra/render.py`` (or ``make infra``).

Every overlay (cpu, gpu, spot) gets a folder with the same files. With ``--values my-values.yaml --to my-infra`` your
own values stay outside of this repository.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml

INFRA = Path(__file__).resolve().parent


def rendered(values: dict[str, Any]) -> dict[str, str]:
    """The content of every file, by its path below the target. Raises `jinja2.UndefinedError` for a missing value."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(INFRA / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    names = [name for name in sorted(environment.list_templates()) if not name.startswith("_")]
    return {
        f"{overlay}/{name.removesuffix('.j2')}": environment.get_template(name).render(
            **with_derived({**values["common"], **own}, overlay)
        )
        for overlay, own in values["overlays"].items()
        for name in names
    }


def with_derived(values: dict[str, Any], overlay: str) -> dict[str, Any]:
    """The values with those that follow from them."""
    hour, minute = values["begin"].split(":")
    is_past_noon = values["deadline"] >= "12:00"
    return {
        **values,
        "overlay": overlay,
        "workers": values["nodes"] * values["workers_per_node"],
        "on_gpu": values["device"] == "cuda",
        "cron": f"{int(minute)} {int(hour)} * * *",
        "deadline_in_zone": f"{values['deadline']} {values['time_zone']}",
        "deadline_day": 0 if is_past_noon else 1,  # days after the date of the night, which lasts from noon to noon
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=Path, default=INFRA / "values.yaml", metavar="FILE")
    parser.add_argument("--to", type=Path, default=INFRA, metavar="DIR")
    chosen = parser.parse_args(arguments)
    for name, content in rendered(yaml.safe_load(chosen.values.read_text(encoding="utf-8"))).items():
        path = chosen.to / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
