"""The training loop: the same steps after a kill, and whole checkpoints."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.line import Line

from posebatch.core.errors import TrainingError
from posebatch.training.loop import (
    CHECKPOINT_NAME,
    LoopSettings,
    Worker,
    averaged_weights,
    examples_of,
    learning_rate_at,
    train,
)

SETTINGS = LoopSettings(
    steps=10, batch_size=3, learning_rate=0.1, warmup_steps=2, ema_decay=0.9, log_every=2, checkpoint_every=2,
    evaluate_every=4,
)  # fmt: skip


def state(folder):
    return torch.load(folder / CHECKPOINT_NAME, weights_only=True)


def equal_states(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    ("step", "settings", "rate"),
    [
        (0, LoopSettings(100, warmup_steps=0, learning_rate=2), 2),
        (0, LoopSettings(100, warmup_steps=4, learning_rate=2), 0.5),
        (3, LoopSettings(100, warmup_steps=4, learning_rate=2), 2),
        (35, LoopSettings(100, warmup_steps=0, learning_rate=2, constant_share=0.35), 2),
        (75, LoopSettings(100, warmup_steps=0, learning_rate=2, constant_share=0.5), 1),
        (100, LoopSettings(100, warmup_steps=0, learning_rate=2, constant_share=0.5), 0),
        (99, LoopSettings(100, warmup_steps=0, learning_rate=2, constant_share=1), 2),
        (0, LoopSettings(1), 1e-5),
        (5, LoopSettings(10, learning_rate=0), 0),
    ],
)
def test_learning_rate_at_rises_stays_and_falls(step, settings, rate):
    assert learning_rate_at(step, settings) == pytest.approx(rate)


@pytest.mark.parametrize(("batch_size", "count"), [(1, 1), (8, 2), (7, 3), (2, 4)])
def test_examples_of_gives_each_example_to_one_worker(batch_size, count):
    stream = [
        number
        for step in range(5)
        for rank in range(count)
        for number in examples_of(step, Worker(rank, count), batch_size)
    ]
    assert stream == list(range(5 * batch_size))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0), ("batch_size", 0), ("log_every", 0), ("checkpoint_every", 0), ("evaluate_every", -1),
        ("seed", -1), ("learning_rate", -1e-3), ("warmup_steps", -1), ("constant_share", 1.1), ("ema_decay", -0.1),
    ],
)  # fmt: skip
def test_loop_settings_refuse_impossible_values(field, value):
    with pytest.raises(ValueError, match=field):
        LoopSettings(**{"steps": 1, field: value})


def test_train_fits_a_line(tmp_path):
    train(Line(), replace(SETTINGS, steps=150), tmp_path)
    averaged, history = averaged_weights(tmp_path)
    assert averaged["weight"].item() == pytest.approx(3, abs=0.1)
    assert averaged["bias"].item() == pytest.approx(2, abs=0.1)
    assert history[-1]["loss"] < 0.05 < history[0]["loss"]


def test_averaged_weights_are_the_running_mean(tmp_path):
    task = Line()
    train(task, SETTINGS, tmp_path)
    mean, *later = [*task.weights[1:], task.network.weight.item()]
    for weight in later:
        mean = 0.9 * mean + 0.1 * weight
    assert averaged_weights(tmp_path)[0]["weight"].item() == pytest.approx(mean, rel=1e-5)


def test_train_resumed_equals_train_uninterrupted(tmp_path):
    whole, first, second = Line(), Line(), Line()
    train(whole, SETTINGS, tmp_path / "whole")

    class Killed(BaseException):
        pass

    def die_at_five(numbers):
        if 5 * SETTINGS.batch_size in numbers:
            raise Killed

    taking = first.loss
    first.loss = lambda network, numbers, progress: die_at_five(numbers) or taking(network, numbers, progress)
    with pytest.raises(Killed):
        train(first, SETTINGS, tmp_path / "parts")
    assert state(tmp_path / "parts")["step"] == 4, "the fifth step was not saved yet"
    train(second, SETTINGS, tmp_path / "parts")
    assert second.taken == whole.taken[4:]
    whole_state, parts_state = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert parts_state["step"] == 10
    assert equal_states(whole_state["network"], parts_state["network"])
    assert equal_states(whole_state["average"], parts_state["average"])
    for row, expected in zip(parts_state["history"], whole_state["history"], strict=True):
        row["examples_per_second"] = expected["examples_per_second"]
    assert parts_state["history"] == whole_state["history"]
    assert [row["step"] for row in whole_state["history"]] == [2, 4, 6, 8, 10]
    assert [row["step"] for row in whole_state["history"] if "AP" in row] == [4, 8, 10]


def test_train_continues_only_with_more_steps(tmp_path):
    train(Line(), SETTINGS, tmp_path)
    finished = (tmp_path / CHECKPOINT_NAME).read_bytes()
    again, longer = Line(), Line()
    train(again, SETTINGS, tmp_path)
    assert not again.taken
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == finished
    train(longer, replace(SETTINGS, steps=13), tmp_path)
    assert [numbers[0] // 3 for numbers in longer.taken] == [10, 11, 12]
    assert state(tmp_path)["step"] == 13


@pytest.mark.parametrize(
    ("task", "changed", "message"),
    [
        (Line(inputs=2), {}, "weight"),
        (Line(), {"batch_size": 4}, "'batch_size': 3"),
        (Line(), {"seed": 1}, "'seed': 0"),
    ],
)
def test_train_refuses_a_checkpoint_of_another_training(tmp_path, task, changed, message):
    train(Line(), SETTINGS, tmp_path)
    with pytest.raises(TrainingError, match=rf"{CHECKPOINT_NAME}: cannot resume from this checkpoint .*{message}"):
        train(task, replace(SETTINGS, **changed), tmp_path)


@pytest.mark.parametrize("damage", [b"", b"no checkpoint", None], ids=["empty", "foreign", "cut"])
def test_train_refuses_a_damaged_checkpoint(tmp_path, damage):
    train(Line(), SETTINGS, tmp_path)
    path = tmp_path / CHECKPOINT_NAME
    path.write_bytes(path.read_bytes()[:-200] if damage is None else damage)
    with pytest.raises(TrainingError, match=rf"{CHECKPOINT_NAME}: cannot resume from this checkpoint"):
        train(Line(), SETTINGS, tmp_path)


def test_train_refuses_a_torch_file_that_is_no_checkpoint(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / CHECKPOINT_NAME)
    with pytest.raises(TrainingError, match=CHECKPOINT_NAME):
        train(Line(), SETTINGS, tmp_path)


def test_train_stops_before_learning_from_a_nan_loss(tmp_path):
    broken_in_step_five = 5 * SETTINGS.batch_size
    with pytest.raises(TrainingError, match=r"the loss is nan at step 6; lower the learning rate \(0\.1\)"):
        train(Line(broken_at=broken_in_step_five), replace(SETTINGS, log_every=10), tmp_path)
    assert state(tmp_path)["step"] == 4
    assert torch.isfinite(state(tmp_path)["network"]["weight"]).all()


def test_train_keeps_the_last_checkpoint_if_killed_while_saving(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(self, target):
        if torch.load(self, weights_only=True)["step"] == 6:
            raise Killed
        return rename(self, target)

    rename = Path.replace
    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(Killed):
        train(Line(), SETTINGS, tmp_path)
    assert state(tmp_path)["step"] == 4
    monkeypatch.undo()
    train(Line(), SETTINGS, tmp_path)
    assert state(tmp_path)["step"] == 10
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_NAME]


def test_train_reports_each_new_row(tmp_path):
    rows = []
    train(Line(), SETTINGS, tmp_path, Worker(), lambda history: rows.append(history[-1]))
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10]
    assert rows[0]["progress"] == pytest.approx(0.05)
    assert rows[0]["learning_rate"] == pytest.approx(0.1)


def test_train_learns_in_mixed_precision(tmp_path):
    train(Line(), replace(SETTINGS, steps=100, bf16=True), tmp_path)
    assert averaged_weights(tmp_path)[0]["weight"].item() == pytest.approx(3, abs=0.3)
