"""The units for one machine without a cluster: systemd understands them, and their command runs as they confine it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.tiny_video import write_tiny_video

from posebatch.dataset.verify import verify
from posebatch.storage.local import LocalStore

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = ("cpu", "gpu", "spot")
NOBODY = 65534

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")

CONFINED = """\
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/base /mnt/state
mount --bind "$BASE" /mnt/base
mount --bind "$STATE" /mnt/state
# a Python below a home folder that nobody else may enter is put where it was, below an open one
if ! setpriv --reuid=$NOBODY --regid=$NOBODY --clear-groups test -x "$BASE/bin"; then
  mount -t tmpfs -o mode=755 tmpfs "/$(echo "$BASE" | cut -d / -f 2)"
  mkdir -p "$BASE"
  mount --bind /mnt/base "$BASE"
fi
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -o remount,ro,bind /
cd /mnt/state
! touch /written 2> /dev/null || { echo "the root can be written" >&2; exit 99; }
exec setpriv --reuid=$NOBODY --regid=$NOBODY --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \\
  env -i HOME=/mnt/state PYTHONUNBUFFERED=1 PYTHONPATH="$CODE" LANG=C.UTF-8 PATH=/usr/bin:/bin "$@"
"""
"""What the unit asks systemd for, by hand: another user without privileges, a read-only root, a /tmp of its own."""


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


def may_unshare() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("setpriv") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(not may_unshare(), reason="needs root, to make a namespace of mounts")
def test_command_of_the_service_runs_without_privileges_on_a_root_that_is_read_only(tmp_path: Path):
    """The same command again has nothing to do, and ends well."""
    state = tmp_path / "state"
    (state / "in").mkdir(parents=True)
    write_tiny_video(state / "in/a.mp4")
    for path in (state, *state.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    words = command("cpu")
    assert words[:3] == ["/opt/posebatch/.venv/bin/posebatch", "run", "s3://my-archive/videos/"]
    assert words[words.index("--output") + 1] == "s3://my-poses/dataset"
    words[0], words[2], words[words.index("--output") + 1] = f"{sys.prefix}/bin/posebatch", "in", "/mnt/state/out"
    variables = {"BASE": sys.base_prefix, "STATE": str(state), "CODE": str(ROOT), "NOBODY": str(NOBODY)}
    for said in ("1 published", "1 up to date"):
        ended = subprocess.run(
            ["unshare", "--mount", "sh", "-c", CONFINED, "sh", *words, "--workers", "1"],
            env={**os.environ, **variables}, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert said in ended.stdout
    assert verify(LocalStore(state / "out")).problems == ()
    assert {path.stat().st_uid for path in (state / "out").rglob("*")} == {NOBODY}
