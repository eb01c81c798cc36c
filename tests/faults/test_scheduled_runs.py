"""The commands of infra/ really run: by one submission a night on a real Ray, and as the systemd unit confines its own.

Runs with POSEBATCH_FAULTS=full only.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from faults.suite import FULL
from submit_nightly import RayCluster, main
from support.ray_head import RayHead
from support.tiny_video import write_tiny_video

from posebatch.dataset.verify import verify
from posebatch.storage.local import LocalStore

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(not FULL, reason="takes a minute: make test-faults"),
]

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534

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

Submit = Callable[..., tuple[int, str]]


@pytest.fixture
def submit(ray_head: RayHead, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Submit:
    """Submit the command of a night; returns the exit code and what was said."""
    monkeypatch.setattr("submit_nightly.POLL_SECONDS", 0.5)
    for name, value in ray_head.environment().items():
        monkeypatch.setenv(name, value)

    def submit_command(night: str, *command: str | Path, options: tuple[str, ...] = ()) -> tuple[int, str]:
        words = [str(word) for word in command]
        code = main(["--address", ray_head.dashboard_url, "--night", night, *options, "--", *words])
        return code, capsys.readouterr().out

    return submit_command


def test_night_on_a_real_ray_is_submitted_once(submit: Submit, ray_head: RayHead):
    first = submit("2026-11-29", sys.executable, "-c", "import sys; sys.exit(4)")
    again = submit("2026-11-29", sys.executable, "-c", "import sys; sys.exit(0)")
    assert (first[0], again[0]) == (4, 4)
    assert "posebatch-2026-11-29: submitted" in first[1]
    assert "submitted" not in again[1]
    cluster = RayCluster(ray_head.dashboard_url, None)
    assert cluster.submit("posebatch-2026-11-29", "true") is False, (
        "the id is taken, and whose job it is does not matter"
    )
    once = "import os, sys; there = os.path.exists(sys.argv[1]); open(sys.argv[1], 'w'); sys.exit(not there)"
    code, said = submit(
        "2026-11-30", sys.executable, "-c", once, ray_head.folder / "tried", options=("--deadline", "06:00")
    )
    assert code == 0, said
    assert "posebatch-2026-11-30: failed, exit code 1" in said
    assert "posebatch-2026-11-30-2: succeeded, exit code 0" in said
    assert "--deadline 2026-12-01T" in ray_head.ask("api/jobs/").decode()


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "spot"])
def test_entrypoint_of_rayjob_runs(submit: Submit, ray_head: RayHead, tmp_path: Path, overlay: str):
    """With the archive, the output, the device and the number of workers of this machine."""
    (tmp_path / "in").mkdir()
    write_tiny_video(tmp_path / "in/a.mp4")
    entrypoint = yaml.safe_load((ROOT / "infra" / overlay / "rayjob.yaml").read_text())["spec"]["entrypoint"]
    words = shlex.split(entrypoint)
    assert words[:3] == ["python", "/app/jobs/extract_poses.py", "s3://my-archive/videos/"]
    words[:3] = [sys.executable, str(ROOT / "jobs/extract_poses.py"), str(tmp_path / "in")]
    for option, value in {"--output": tmp_path / "out", "--device": "cpu", "--workers": 1}.items():
        words[words.index(option) + 1] = str(value)
    code, said = submit(f"2026-01-{1 + len(overlay):02}", *words, options=("--name", overlay))
    assert code == 0, said + ray_head.ask("api/jobs/").decode()
    verdict = verify(LocalStore(tmp_path / "out"))
    assert (verdict.problems, verdict.videos) == ((), 1)


def may_unshare() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("setpriv") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_unshare(), reason="needs root, to make a namespace of mounts")
def test_command_of_the_service_runs_without_privileges_on_a_root_that_is_read_only(tmp_path: Path):
    """The same command again has nothing to do, and ends well."""
    state = tmp_path / "state"
    (state / "in").mkdir(parents=True)
    write_tiny_video(state / "in/a.mp4")
    for path in (state, *state.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    unit = (ROOT / "infra/cpu/posebatch.service").read_text().replace("\\\n", "")
    (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    words = [word.replace("%%", "%") for word in shlex.split(line)]
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
