"""The training commands: they learn, resume after a kill, share the work among workers, and report errors.

One thread each, so that sums are always added in the same order.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
from ray.train import WorkerGroupError
from support.scripts import module_of
from support.training_factories import write_coco, write_persons, write_scenes

from posebatch.core.presets import PRESETS
from posebatch.models.networks.person_detector import DetectorSettings, load_detector
from posebatch.models.networks.pose_network import load_pose_network
from posebatch.models.weights.names import EMBEDDED
from posebatch.pose.pixels import RgbPixels
from posebatch.training.detector_augmentation import SceneAugmentation
from posebatch.training.loop import CHECKPOINT_NAME, averaged_weights
from posebatch.training.options import pose_parser, pose_recipe, train_detector, train_pose
from posebatch.training.pose_augmentation import PoseAugmentation
from posebatch.training.recipes import PoseRecipe

ROOT = Path(__file__).resolve().parents[2]
POSE, DETECTOR = PRESETS["fast"][1], EMBEDDED["detector"][0]
STEPS, EVERY = 16, 4

NO_AUGMENTATION = [word for name in vars(PoseAugmentation()) for word in (f"--{name.replace('_', '-')}", "0")]

SMALL = ["--start", POSE, "--input-size", "64", "96", "--batch-size", "4", "--steps", str(STEPS), "--device", "cpu",
         "--frozen-blocks", "10", "--warmup-steps", "4", "--constant-share", "0.5", "--ema-decay", "0.5",
         "--log-every", str(EVERY), "--checkpoint-every", str(EVERY), *NO_AUGMENTATION]  # fmt: skip

LEARNT = 4.0
"""Loss that a training of `STEPS` must reach: it begins near 16 and ends near 2."""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def start(script: str, *words: object) -> subprocess.Popen[str]:
    """Start a script in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, ROOT / "jobs" / f"{script}.py", *map(str, words)], env={**environment, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def train(command, *words: object) -> str:
    """Run a command in this process; returns its output."""
    output = StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        exit_code = command([*map(str, words)], None)
    assert exit_code == 0, output.getvalue()
    return output.getvalue()


def recipe_of(*words: object) -> PoseRecipe:
    return pose_recipe(pose_parser().parse_args([*map(str, words)]))


def logged_steps(output: str) -> list[int]:
    return [int(step) for step in re.findall(rf"step: (\d+)/{STEPS}, ", output)]


def history(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / "history.json").read_text())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return averaged_weights(folder)[0]


def distance(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> float:
    return sum((a[key].float() - b[key].float()).square().sum().item() for key in a) ** 0.5


@pytest.fixture(scope="module")
def persons(tmp_path_factory) -> Path:
    return write_persons(tmp_path_factory.mktemp("persons") / "persons.parquet")


@pytest.fixture(scope="module")
def uninterrupted(persons, tmp_path_factory) -> tuple[Path, str]:
    """The folder and the output of an uninterrupted training."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    labels, images = write_coco(folder)
    validation = ("--validate", labels, "--validate-images", images)
    return folder, train(train_pose, "--data", persons, "--output", folder, "--name", "walk", *SMALL, *validation)


@pytest.mark.slow
def test_train_pose_learns_and_writes_a_usable_network(uninterrupted):
    folder, output = uninterrupted
    assert logged_steps(output) == [4, 8, 12, 16]
    losses = [row["loss"] for row in history(folder)]
    assert losses[-1] < LEARNT < losses[0]
    assert "AP" in history(folder)[-1]
    assert f"{folder / 'walk.safetensors'}: AP 0." in output
    assert (folder / "progress.png").read_bytes().startswith(b"\x89PNG")
    network = load_pose_network(str(folder / "walk.safetensors"))
    assert network.record.input_size_wh == (64, 96)
    assert network.record.accuracy["measured on"] == "labels.json"
    maps = network.heatmaps(torch.full((1, 3, 96, 64), 128.0))
    assert maps.shape == (1, 17, 24, 16)
    assert torch.isfinite(maps).all()


@pytest.mark.slow
def test_train_pose_learns_nothing_at_learning_rate_0(persons, tmp_path):
    """The loss that the test above demands is not there from the start."""
    short = ["--learning-rate", "0", "--steps", "8", "--log-every", "4"]
    train(train_pose, "--data", persons, "--output", tmp_path, *SMALL, *short)
    assert all(row["loss"] > LEARNT for row in history(tmp_path))


@pytest.mark.slow
def test_train_pose_resumes_after_a_kill(persons, uninterrupted, tmp_path):
    command = ("--data", persons, "--output", tmp_path, "--name", "walk", *SMALL)
    process = start("train_pose", *command)
    deadline = time.monotonic() + 600
    while not (tmp_path / CHECKPOINT_NAME).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output
    assert not (tmp_path / "walk.safetensors").exists()
    stopped_at = torch.load(tmp_path / CHECKPOINT_NAME, weights_only=True)["step"]
    assert 0 < stopped_at < STEPS
    resumed = train(train_pose, *command)
    assert logged_steps(resumed) == list(range(stopped_at + EVERY, STEPS + 1, EVERY))
    assert [row["step"] for row in history(tmp_path)] == [4, 8, 12, 16]
    whole, parts = weights(uninterrupted[0]), weights(tmp_path)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


@pytest.mark.slow
@pytest.mark.ray
def test_train_pose_shares_batches_among_workers_of_ray_train(persons, uninterrupted, tmp_path):
    """On a local Ray. Each worker takes the mean over its half of a batch: the weights are close, not equal."""
    command = ("--data", persons, "--output", tmp_path, "--name", "walk", *SMALL, "--workers", 2)
    process = start("train_pose", *command)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    assert [row["step"] for row in history(tmp_path)] == [4, 8, 12, 16], output
    assert logged_steps(output) == [4, 8, 12, 16], output
    assert history(tmp_path)[-1]["loss"] < LEARNT
    alone, shared = weights(uninterrupted[0]), weights(tmp_path)
    initial = recipe_of(*command).prepare("cpu").network.state_dict()
    change = distance(alone, initial)
    assert change > 0
    assert distance(alone, shared) < 0.5 * change
    load_pose_network(str(tmp_path / "walk.safetensors"))


def test_train_pose_reports_the_error_of_a_worker(persons, tmp_path, monkeypatch, capsys):
    """The first line of Ray Train's own error only says that a worker stopped."""

    class StoppedTrainer:
        def __init__(self, *arguments, **options):
            pass

        def fit(self):
            trace = 'Traceback (most recent call last):\n  File "x.py"\nposebatch.errors.TrainingError: x.pt: damaged\n'
            raise WorkerGroupError(f"[Rank 0 Error Snippet]:\n{trace}", {})

    monkeypatch.setattr("ray.train.torch.TorchTrainer", StoppedTrainer)
    monkeypatch.setattr("posebatch.run.workers.ray_session.connect_to_ray", lambda *_, **__: nullcontext())
    words = ["--data", persons, "--output", tmp_path, *SMALL, "--workers", "2"]
    assert train_pose([*map(str, words)], None) == 2
    assert capsys.readouterr().err.startswith(
        f"train_pose: {tmp_path}: Ray Train gave up (posebatch.errors.TrainingError: x.pt: damaged);"
    )


@pytest.mark.slow
def test_train_detector_learns_and_writes_a_usable_network(persons, tmp_path):
    scenes = write_scenes(tmp_path / "scenes.parquet", 2)
    command = ("--data", scenes, "--start", DETECTOR, "--batch-size", 2, "--warmup-steps", 0, "--log-every", 1,
               "--device", "cpu", "--output", tmp_path, "--persons", persons, "--name", "gym")  # fmt: skip
    output = train(train_detector, *command, "--steps", 3, "--validate", scenes)
    assert re.findall(r"step: (\d)/3, ", output) == ["1", "2", "3"]
    losses = [row["loss"] for row in history(tmp_path)]
    assert all(0 < loss < 10 for loss in losses)
    assert len(set(losses)) == 3
    assert "recall_at_precision_0.8" in history(tmp_path)[-1]
    detector = load_detector(str(tmp_path / "gym.safetensors"), DetectorSettings())
    assert detector.record.accuracy["measured on"] == "scenes.parquet"
    detector.detect(RgbPixels(torch.full((1, 40, 60, 3), 128, dtype=torch.uint8)))


# Errors

MISTAKES = [
    # words, message
    (["--data", "nowhere.parquet"], "nowhere.parquet: no such file"),
    (["--data", "DATA", "--start", "nothing_known"], "nothing_known"),
    (["--data", "DATA", "--steps", "0"], "steps must be at least 1, got 0"),
    (["--data", "DATA", "--learning-rate", "-1"], "learning_rate must not be negative"),
    (["--data", "DATA", "--flip", "2"], "flip must be in 0..1, got 2"),
    (["--data", "DATA", "--workers", "0"], "--workers must be at least 1"),
    (["--data", "DATA", "--workers", "3", "--batch-size", "2"], "3 workers cannot share batches of 2"),
    (["--data", "DATA", "--name", "a/b"], "without folder"),
    (["--data", "DATA", "--validate", "nowhere.json"], "nowhere.json"),
    (["--data", "DATA", "--output", "DATA/below"], "choose another --output"),
    (["--data", "DATA", "--input-size", "100", "100"], "input_size_wh must be two multiples of 32"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES)
def test_train_pose_reports_errors(words, message, persons, tmp_path, capsys):
    words = [word.replace("DATA", str(persons)) for word in words]
    defaults = ["--start", POSE, "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert train_pose([*defaults, *words], None) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("train_pose: ")
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"), [MISTAKES[0], MISTAKES[1], (["--data", "DATA", "--mosaic", "2"], "mosaic must be in 0..1")]
)
def test_train_detector_reports_errors(words, message, tmp_path, capsys):
    scenes = write_scenes(tmp_path / "scenes.parquet", 1)
    words = [word.replace("DATA", str(scenes)) for word in words]
    defaults = ["--start", DETECTOR, "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert train_detector([*defaults, *words], None) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("train_detector: ")
    assert message in errors


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("train_pose", ["--data", "x", "--output", "y", "--architecture", "alexnet"]),
        ("train_detector", ["--data", "x", "--output", "y", "--steps", "many"]),
    ],
)
def test_training_scripts_show_the_usage_for_wrong_flags(script, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        module_of(script).main(words)
    assert "usage: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "augmentation"), [("train_pose", PoseAugmentation()), ("train_detector", SceneAugmentation())]
)
def test_training_scripts_show_examples_and_defaults(script, augmentation, capsys):
    with pytest.raises(SystemExit, match="0"):
        module_of(script).main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"python jobs/{script}.py" in text
    for name, default in vars(augmentation).items():
        flag = name.replace("_", "-")
        assert re.search(rf"--{flag} \S+ default: {default:g}\b", text), flag


# Recipes


def test_pose_recipe_repeats_sources(persons):
    recipe = recipe_of("--data", persons, "--output", "out", "--start", POSE, "--repeat", "drawn=3")
    assert recipe.repeats == (("drawn", 3),)
    assert len(recipe.prepare("cpu")._examples) == 3 * 4


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--start", POSE], (0.25, 4)),
        (["--backbone", "resnet50"], (0.25, 4)),
        ([], (1.0, 0)),
        (["--frozen-blocks", "2", "--backbone-rate", "0.5"], (0.5, 2)),
    ],
)
def test_pose_recipe_trains_an_untrained_backbone_fully(words, expected):
    task = recipe_of("--data", "x", "--output", "y", *words).task
    assert (task.backbone_rate, task.frozen_blocks) == expected
