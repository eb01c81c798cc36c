"""The larger embedded network's training: its stages and files, its background process, its status."""

import json
import os
import signal
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import save_file
from support.training_factories import write_persons

from posebatch.core.errors import TrainingError
from posebatch.models.networks.pose_resnet import build_pose_network
from posebatch.models.weights.names import resolve
from posebatch.training import embedded
from posebatch.training.background import read_status, running_process, sole_process, start_background, status_text
from posebatch.training.embedded import (
    ARCHITECTURE,
    NAME,
    STAGES,
    TrainingFiles,
    export_weights,
    recipe_of_stage,
    remember_files,
    train_stages,
)
from posebatch.training.loop import CHECKPOINT_NAME
from posebatch.training.pose_augmentation import NO_AUGMENTATION

SOURCES = ["coco_train2017", "flickr8k_quantumnaan", "other", "other"]
HOLDER = """
import sys, time
from pathlib import Path
from posebatch.training.background import sole_process
with sole_process(Path(sys.argv[1])):
    time.sleep(600)
"""


@pytest.fixture
def files(tmp_path):
    """Drawn persons of the sources that the recipe repeats, and a backbone with random weights."""
    data = write_persons(tmp_path / "persons.parquet", len(SOURCES))
    table = pq.read_table(data).drop_columns(["source"]).append_column("source", pa.array(SOURCES))
    pq.write_table(table, data)
    backbone = tmp_path / "features.safetensors"
    features = build_pose_network(ARCHITECTURE).backbone.state_dict()
    save_file({f"features.{key}": tensor.contiguous() for key, tensor in features.items()}, backbone)
    return TrainingFiles(data, None, backbone, None)


@pytest.fixture
def short(monkeypatch):
    """Stages of one step with two samples."""
    for name, value in {"_BATCH": 2, "_HEAD_STEPS": 1, "_WHOLE_STEPS": 1, "_AUGMENTATION": NO_AUGMENTATION}.items():
        monkeypatch.setattr(embedded, name, value)


def test_remember_files_returns_the_first_files(files, tmp_path):
    with pytest.raises(TrainingError, match="no training was begun there"):
        remember_files(tmp_path / "out", None)
    assert remember_files(tmp_path / "out", files) == remember_files(tmp_path / "out", None) == files
    others = TrainingFiles(files.data, files.data, files.backbone, None)
    with pytest.raises(TrainingError, match="has other files"):
        remember_files(tmp_path / "out", others)


@pytest.mark.slow
def test_train_stages_starts_each_stage_from_the_one_before(files, short, tmp_path):
    folder = tmp_path / "out"
    with pytest.raises(TrainingError, match="no checkpoint"):
        export_weights(files, folder)
    record = train_stages(files, folder, "cpu")
    assert (record.name, record.architecture) == (NAME, ARCHITECTURE)
    before = {stage: (folder / stage / CHECKPOINT_NAME).stat().st_mtime_ns for stage in STAGES}
    train_stages(files, folder, "cpu")
    assert (folder / "head" / CHECKPOINT_NAME).stat().st_mtime_ns == before["head"], "a finished stage is not repeated"
    assert resolve("pose", str(export_weights(files, folder))).source == f"network of {NAME}.safetensors"


@pytest.mark.parametrize(("stage", "first_learning_block"), [("head", 18), ("whole", 5)])
def test_recipe_of_stage_freezes_the_first_blocks(files, short, tmp_path, stage, first_learning_block):
    if stage == "whole":
        train_stages(files, tmp_path, "cpu")
    task = recipe_of_stage(stage, files, tmp_path).prepare("cpu")
    task.parameter_groups()
    for number, block in enumerate(task.network.backbone):
        assert all(parameter.requires_grad == (number >= first_learning_block) for parameter in block.parameters())
    assert task.network.final_layer.weight.requires_grad


@pytest.mark.slow
def test_sole_process_holds_the_lock_until_it_is_killed(tmp_path):
    assert running_process(tmp_path) is None
    process = start_background(["-c", HOLDER, str(tmp_path)], tmp_path)
    try:
        deadline = time.monotonic() + 300
        while running_process(tmp_path) != process and time.monotonic() < deadline:
            time.sleep(0.05)
        assert running_process(tmp_path) == process
        assert os.getpriority(os.PRIO_PROCESS, process) == 19
        group = Path(f"/proc/{process}/autogroup")
        if group.exists():
            assert group.read_text().split()[-1] == "19"
        with pytest.raises(TrainingError, match=f"process {process} trains there already"), sole_process(tmp_path):
            pass
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    assert running_process(tmp_path) is None
    with sole_process(tmp_path):
        assert running_process(tmp_path) == os.getpid()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, "no process trains\nnothing has been logged yet"),
        (
            [
                {"step": 50, "loss": 3.0, "examples_per_second": 10.0},
                {"step": 100, "loss": 2.0, "examples_per_second": 14.0, "AP": 0.4567, "AP50": 0.7, "AR": 0.5},
            ],
            "process 7 trains\n"
            "stage head: 1,600 samples, loss 2.500 (mean of the last rows), 12.0 samples/s\n"
            "  after 1,600 samples: AP 0.457, AP50 0.700, AR 0.500",
        ),
    ],
)
def test_status_text_states_samples_loss_and_accuracy(tmp_path, rows, message):
    if rows is not None:
        (tmp_path / "head").mkdir()
        Path(tmp_path, "head", "history.json").write_text(json.dumps(rows))
    status = read_status(tmp_path, "head", 16)
    assert status_text(7 if rows else None, [status] if status else []) == message
