"""The units for one machine without a cluster, as systemd sees them; `faults/test_scheduled_runs.py` runs one."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = ("cpu", "gpu", "spot")

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


def unit(overlay: str, name: str) -> str:
    return (ROOT / "infra" / overlay / name).read_text()


def command(overlay: str) -> list[str]:
    (line,) = re.findall(r"^ExecStart=(.*)$", unit(overlay, "posebatch.service").replace("\\\n", ""), re.MULTILINE)
    return [word.replace("%%", "%") for word in shlex.split(line)]


@needs_systemd
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_systemd_understands_the_units(tmp_path: Path, overlay: str):
    service = unit(overlay, "posebatch.service").replace(command(overlay)[0], "/bin/true")
    (tmp_path / "posebatch.service").write_text(service)
    (tmp_path / "posebatch.timer").write_text(unit(overlay, "posebatch.timer"))
    paths = [tmp_path / "posebatch.service", tmp_path / "posebatch.timer"]
    said = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False)
    assert [line for line in said.stderr.splitlines() if "posebatch" in line] == []


@needs_systemd
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_timer_comes_every_night(overlay: str):
    (calendar,) = re.findall(r"^OnCalendar=(.*)$", unit(overlay, "posebatch.timer"), re.MULTILINE)
    asked = ["systemd-analyze", "calendar", "--base-time=2026-11-29 12:00:00 UTC", "--iterations=2", calendar]
    said = subprocess.run(asked, capture_output=True, text=True, check=True, env={**os.environ, "TZ": "UTC"}).stdout
    assert re.findall(r"(?:Next elapse|Iteration #2|Iter. #2): (.*)", said) == [
        "Mon 2026-11-30 01:00:00 UTC",
        "Tue 2026-12-01 01:00:00 UTC",
    ]


@needs_systemd
@pytest.mark.parametrize(("overlay", "most"), [("cpu", 5.0), ("gpu", 5.2), ("spot", 5.2)])
def test_service_is_confined(tmp_path: Path, overlay: str, most: float):
    """By systemd's own measure, 0 (confined) to 10 (free); a GPU needs its devices."""
    path = tmp_path / "posebatch.service"
    path.write_text(unit(overlay, "posebatch.service"))
    asked = ["systemd-analyze", "security", "--offline=yes", path]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    (exposure,) = re.findall(r"Overall exposure level for posebatch.service: ([\d.]+)", said)
    assert float(exposure) <= most
