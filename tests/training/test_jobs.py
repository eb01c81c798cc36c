"""The training jobs as a user runs them: they learn, go on after a kill, share the work, and say what is wrong.

One thread each, so that a sum is always added up in the same order.
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
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.train import WorkerGroupError
from support.scripts import module_of
from support.training_factories import write_coco, write_persons, write_scenes

from posebatch.models.networks.person_detector import DetectorSettings, load_detector
from posebatch.models.networks.pose_network import load_pose_network
from posebatch.models.weights.names import EMBEDDED
from posebatch.pose.pixels import RgbPixels
from posebatch.training.detector_augmentation import SceneAugmentation
from posebatch.training.loop import CHECKPOINT_NAME, averaged_weights
from posebatch.training.pose_augmentation import PoseAugmentation

ROOT = Path(__file__).resolve().parents[2]
POSE, DETECTOR = EMBEDDED["pose"][0], EMBEDDED["detector"][0]
STEPS, EVERY = 16, 4

STILL = [word for name in vars(PoseAugmentation()) for word in (f"--{name.replace('_', '-')}", "0")]

SMALL = ["--start", POSE, "--input-size", "64", "96", "--batch-size", "4", "--steps", str(STEPS), "--device", "cpu",
         "--frozen-blocks", "10", "--warmup-steps", "4", "--constant-share", "0.5", "--ema-decay", "0.5",
         "--log-every", str(EVERY), "--checkpoint-every", str(EVERY), *STILL]  # fmt: skip

LEARNT = 4.0
"""The loss that a training of `STEPS` must reach; it begins near 16 and ends near 2."""


def start(job: str, *words: object) -> subprocess.Popen[str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, ROOT / "jobs" / f"{job}.py", *map(str, words)], env={**ours, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def run(job: str, *words: object) -> str:
    process = start(job, *words)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return output


def recipe_of(job: str, *words: object) -> Any:
    module = module_of(job)
    return module.recipe_of(module.build_parser().parse_args([*map(str, words)]))


def steps_said(output: str) -> list[int]:
    return [int(step) for step in re.findall(rf"^.*step (\d+) of {STEPS}:", output, re.MULTILINE)]


def history(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / "history.json").read_text())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return averaged_weights(folder)[0]


@pytest.fixture(scope="module")
def persons(tmp_path_factory) -> Path:
    return write_persons(tmp_path_factory.mktemp("persons") / "persons.parquet")


@pytest.fixture(scope="module")
def undisturbed(persons, tmp_path_factory) -> tuple[Path, str]:
    """A training that nothing disturbed, and what it said."""
    folder = tmp_path_factory.mktemp("undisturbed")
    labels, images = write_coco(folder)
    measured = ("--validate", labels, "--validate-images", images)
    return folder, run("train_pose", "--data", persons, "--output", folder, "--name", "walk", *SMALL, *measured)


def test_a_pose_network_learns_and_can_be_used(undisturbed):
    folder, output = undisturbed
    assert steps_said(output) == [4, 8, 12, 16]
    losses = [row["loss"] for row in history(folder)]
    assert losses[-1] < LEARNT < losses[0]
    assert "AP" in history(folder)[-1]
    assert f"{folder / 'walk.safetensors'}: AP 0." in output
    assert (folder / "progress.png").read_bytes().startswith(b"\x89PNG")
    ready = load_pose_network(str(folder / "walk.safetensors"))
    assert ready.record.input_size_wh == (64, 96)
    assert ready.record.accuracy["measured on"] == "labels.json"
    maps = ready.heatmaps(torch.full((1, 3, 96, 64), 128.0))
    assert maps.shape == (1, 17, 24, 16)
    assert torch.isfinite(maps).all()


def test_nothing_is_learnt_at_learning_rate_0(persons, tmp_path):
    """What the test above asks for is not there from the start."""
    short = ["--learning-rate", "0", "--steps", "8", "--log-every", "4"]
    assert module_of("train_pose").main(["--data", str(persons), "--output", str(tmp_path), *SMALL, *short]) == 0
    assert all(row["loss"] > LEARNT for row in history(tmp_path))


def test_a_killed_training_goes_on(persons, undisturbed, tmp_path):
    command = ("--data", persons, "--output", tmp_path, "--name", "walk", *SMALL)
    process = start("train_pose", *command)
    deadline = time.monotonic() + 600
    while not (tmp_path / CHECKPOINT_NAME).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    said, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, said
    assert not (tmp_path / "walk.safetensors").exists()
    stopped_at = torch.load(tmp_path / CHECKPOINT_NAME, weights_only=True)["step"]
    assert 0 < stopped_at < STEPS
    output = run("train_pose", *command)
    assert steps_said(output) == list(range(stopped_at + EVERY, STEPS + 1, EVERY))
    assert [row["step"] for row in history(tmp_path)] == [4, 8, 12, 16]
    whole, parts = weights(undisturbed[0]), weights(tmp_path)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


@pytest.mark.ray
def test_workers_of_ray_train_share_the_work(persons, undisturbed, tmp_path):
    """On a Ray of its own. Each worker takes the mean over its half of a batch: the weights are close, not equal."""
    command = ("--data", persons, "--output", tmp_path, "--name", "walk", *SMALL, "--workers", 2)
    output = run("train_pose", *command)
    assert [row["step"] for row in history(tmp_path)] == [4, 8, 12, 16], output
    assert steps_said(output) == [4, 8, 12, 16], output
    assert history(tmp_path)[-1]["loss"] < LEARNT
    one, two = weights(undisturbed[0]), weights(tmp_path)
    at_first = recipe_of("train_pose", *command).prepare("cpu").network.state_dict()
    travelled = distance(one, at_first)
    assert travelled > 0
    assert distance(one, two) < 0.5 * travelled
    load_pose_network(str(tmp_path / "walk.safetensors"))


def test_what_stopped_a_worker_is_said(persons, tmp_path, monkeypatch, capsys):
    """Ray Train's own first line only says that one stopped."""

    class Stopped:
        def __init__(self, *arguments, **options):
            pass

        def fit(self):
            trace = 'Traceback (most recent call last):\n  File "x.py"\nposebatch.errors.TrainingError: x.pt: damaged\n'
            raise WorkerGroupError(f"[Rank 0 Error Snippet]:\n{trace}", {})

    monkeypatch.setattr("ray.train.torch.TorchTrainer", Stopped)
    monkeypatch.setattr("posebatch.training.launch._ray_connection", lambda workers: nullcontext())
    words = ["--data", persons, "--output", tmp_path, *SMALL, "--workers", "2"]
    assert module_of("train_pose").main([*map(str, words)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        f"train_pose: {tmp_path}: Ray Train gave up (posebatch.core.errors.TrainingError: x.pt: damaged);"
    )


def distance(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    return sum((one[key].float() - other[key].float()).square().sum().item() for key in one) ** 0.5


def test_a_detector_learns_and_can_be_used(persons, tmp_path):
    scenes = write_scenes(tmp_path / "scenes.parquet", 2)
    command = ("--data", scenes, "--start", DETECTOR, "--batch-size", 2, "--warmup-steps", 0, "--log-every", 1,
               "--device", "cpu", "--output", tmp_path, "--persons", persons, "--name", "gym")  # fmt: skip
    output = run("train_detector", *command, "--steps", 3, "--validate", scenes)
    assert re.findall(r"step (\d) of 3", output) == ["1", "2", "3"]
    losses = [row["loss"] for row in history(tmp_path)]
    assert all(0 < loss < 10 for loss in losses)
    assert len(set(losses)) == 3
    assert "recall_at_precision_0.8" in history(tmp_path)[-1]
    detector = load_detector(str(tmp_path / "gym.safetensors"), DetectorSettings())
    assert detector.record.accuracy["measured on"] == "scenes.parquet"
    detector.detect(RgbPixels(torch.full((1, 40, 60, 3), 128, dtype=torch.uint8)))


# What cannot be done

MISTAKES = [
    # words, what is said
    (["--data", "nowhere.parquet"], "nowhere.parquet: no such file"),
    (["--data", "DATA", "--start", "nothing_known"], "nothing_known"),
    (["--data", "DATA", "--steps", "0"], "steps must be at least 1, got 0"),
    (["--data", "DATA", "--log-every", "0"], "log_every must be at least 1"),
    (["--data", "DATA", "--learning-rate", "-1"], "learning_rate must not be negative"),
    (["--data", "DATA", "--flip", "2"], "flip must be in 0..1, got 2"),
    (["--data", "DATA", "--workers", "0"], "--workers must be at least 1"),
    (["--data", "DATA", "--workers", "3", "--batch-size", "2"], "3 workers cannot share batches of 2"),
    (["--data", "DATA", "--name", "a/b"], "without folder"),
    (["--data", "DATA", "--validate", "nowhere.json"], "nowhere.json"),
    (["--data", "DATA", "--output", "DATA/below"], "choose another --output"),
]


@pytest.mark.parametrize(("job", "network"), [("train_pose", POSE), ("train_detector", DETECTOR)])
@pytest.mark.parametrize(("words", "said"), MISTAKES)
def test_mistakes_are_said(job, network, words, said, persons, tmp_path, capsys):
    if job == "train_detector":
        persons = write_scenes(tmp_path / "scenes.parquet", 1)
    given = [word.replace("DATA", str(persons)) for word in words]
    defaults = ["--start", network, "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert module_of(job).main([*defaults, *given]) == 2
    output = capsys.readouterr()
    assert output.err.startswith(f"{job}: ")
    assert said in output.err
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ("train_pose", []),
        ("train_pose", ["--data", "x", "--output", "y", "--architecture", "alexnet"]),
        ("train_detector", ["--data", "x", "--output", "y", "--steps", "many"]),
    ],
)
def test_a_wrong_command_line_shows_the_usage(job, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        module_of(job).main(words)
    assert "usage: " in capsys.readouterr().err


def test_sources_are_repeated_as_asked(persons):
    recipe = recipe_of("train_pose", "--data", persons, "--output", "out", "--start", POSE, "--repeat", "drawn=3")
    assert recipe.repeats == (("drawn", 3),)
    assert len(recipe.prepare("cpu")._examples) == 3 * 4


def test_a_size_that_no_network_takes_is_said_as_a_command(persons, tmp_path):
    process = start("train_pose", "--data", persons, "--output", tmp_path, "--start", POSE, "--input-size", 100, 100)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 2
    assert output.startswith("train_pose: input_size_wh must be two multiples of 32")
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("job", "augmentation"), [("train_pose", PoseAugmentation()), ("train_detector", SceneAugmentation())]
)
def test_the_help_shows_every_default(job, augmentation, capsys):
    with pytest.raises(SystemExit, match="0"):
        module_of(job).main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name, default in vars(augmentation).items():
        flag = name.replace("_", "-")
        assert re.search(rf"--{flag} \S+ default: {default:g}\b", text), flag


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--start", POSE], (0.25, 4)),
        (["--backbone", "resnet50"], (0.25, 4)),
        ([], (1.0, 0)),
        (["--frozen-blocks", "2", "--backbone-rate", "0.5"], (0.5, 2)),
    ],
)
def test_a_backbone_that_knows_nothing_learns_all_of_it(words, expected):
    task = recipe_of("train_pose", "--data", "x", "--output", "y", *words).task
    assert (task.backbone_rate, task.frozen_blocks) == expected
