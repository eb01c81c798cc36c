"""Scripts whose optional libraries are not installed say so, and still print their help."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from posebatch.core.errors import UsageError
from posebatch.core.extras import EXTRAS, need

ROOT = Path(__file__).resolve().parents[2]

WITHOUT_EXTRAS = f"""
import runpy, sys
for name in {tuple(EXTRAS)}:
    sys.modules[name] = None
sys.path.insert(0, "jobs")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def without_extras(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, *command], capture_output=True, text=True, cwd=ROOT, check=False
    )


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ([], ""),
        (["nncf"], r"^nncf is not installed: pip install 'posebatch\[quantize\]', or in a checkout"),
        (["matplotlib", "pycocotools"], r"^matplotlib and pycocotools are not installed: .*'posebatch\[plot,train\]'"),
        (["cv2"], r"^cv2 is not installed: pip install 'posebatch\[flow\]'"),
        (["nncf", "pycocotools"], r"'posebatch\[quantize,train\]'"),
    ],
)
def test_need_names_the_extra(monkeypatch: pytest.MonkeyPatch, missing: list[str], message: str):
    for name in EXTRAS:
        monkeypatch.setitem(sys.modules, name, None if name in missing else pytest)
    monkeypatch.setattr(pytest, "__spec__", object(), raising=False)
    if not missing:
        need(*EXTRAS)
        return
    with pytest.raises(UsageError, match=message):
        need(*missing)


def test_extras_are_those_of_the_package():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for library, extra in EXTRAS.items():
        distribution = {"cv2": "opencv-python-headless"}.get(library, library)
        assert any(requirement.startswith(distribution) for requirement in extras[extra]), library


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "jobs").glob("*.py")))
def test_script_prints_its_help_without_extras(script: str):
    done = without_extras(f"jobs/{script}", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "library"),
    [
        (["jobs/evaluate_pose.py", "--data", "x.json"], "pycocotools and matplotlib"),
        (["jobs/compare_settings.py", "x.mp4", "--stride", "2"], "pycocotools"),
        (["jobs/train_pose.py", "--data", "x.json", "--output", "out", "--name", "x"], "matplotlib and pycocotools"),
        (["jobs/quantize.py", "--data", "x.json", "--pose", "x"], "nncf and openvino"),
    ],
    ids=lambda value: value if isinstance(value, str) else Path(value[0]).stem,
)
def test_script_names_its_missing_extra(command: list[str], library: str):
    done = without_extras(*command)
    assert done.returncode == 2, done.stderr
    assert f"{library} {'are' if ' and ' in library else 'is'} not installed: pip install" in done.stderr
    assert "Traceback" not in done.stderr
