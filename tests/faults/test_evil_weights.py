"""Weight files as attack: whatever lies in one, and by whichever door it comes, nothing in it runs."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import torch
from support.line import Line
from support.s3_server import S3Server
from support.scripts import module_of
from support.sources import SOURCES, imported
from support.tiny_video import write_tiny_video
from support.weight_files import PAPER, PAPER_FILE, content, running_weight_server

from posebatch.cli.entry import main
from posebatch.core.errors import TrainingError, WeightsError
from posebatch.models.networks.pose_resnet import build_pose_network
from posebatch.models.weights import cache
from posebatch.models.weights.convert import convert
from posebatch.models.weights.files import load_backbone, load_weights, read_tensors
from posebatch.models.weights.quantized import load_quantized
from posebatch.storage import s3
from posebatch.training.loop import CHECKPOINT_NAME, LoopSettings, averaged_weights, train


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.canary),)


def by_torch(value: object, zipped: bool = True) -> bytes:
    sink = io.BytesIO()
    torch.save(value, sink, _use_new_zipfile_serialization=zipped)
    return sink.getvalue()


def zip_with(body: bytes, *names: str) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name in names:
            archive.writestr(f"evil/{name}", body)
        archive.writestr("evil/version", "3\n")
    return sink.getvalue()


pytestmark = pytest.mark.filterwarnings("ignore:.*(TorchScript|torch.jit.load|pickle protocol)")

CHECKPOINTS: dict[str, Callable[[Evil], bytes]] = {
    "nothing": lambda _: b"",
    "a bare pickle": lambda evil: pickle.dumps({"state_dict": {"x": evil}}, protocol=2),
    "an old text pickle": lambda evil: pickle.dumps(evil, protocol=0),
    "the newest pickle": lambda evil: pickle.dumps(evil, protocol=pickle.HIGHEST_PROTOCOL),
    "by torch": lambda evil: by_torch({"state_dict": {"x": torch.zeros(1), "y": evil}}),
    "by an old torch": lambda evil: by_torch({"state_dict": {"x": torch.zeros(1), "y": evil}}, zipped=False),
    "at the top": by_torch,
    "beside the weights": lambda evil: by_torch({"state_dict": {"x": torch.zeros(1)}, "meta": [evil]}),
    "a zip": lambda evil: zip_with(pickle.dumps(evil), "data.pkl"),
    "as if compiled by torch": lambda evil: zip_with(pickle.dumps(evil), "data.pkl", "constants.pkl", "code/x.py"),
}

NAMES = ["x.pth", "x.pth.tar", "x.pt", "x.bin", "x.ckpt", "x.pkl", "X.PTH", "x.safetensors", "x", PAPER_FILE]


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """What must not come to be."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "something in the file ran"


def test_the_attack_works_where_nobody_minds(tmp_path: Path) -> None:
    """Otherwise the tests below would prove nothing."""
    for number, (name, make) in enumerate(CHECKPOINTS.items()):
        path = tmp_path / str(number)
        path.write_bytes(make(Evil(tmp_path / f"canary {number}")))
        with contextlib.suppress(Exception):  # some are no files of torch's, but run on the way
            torch.load(path, weights_only=False)
        assert (tmp_path / f"canary {number}").exists() is (name not in {"nothing", "as if compiled by torch"}), name


def write(folder: Path, name: str, make: Callable[[Evil], bytes]) -> Path:
    path = folder / name
    path.write_bytes(make(Evil(folder / "canary")))
    return path


@pytest.mark.parametrize("make", CHECKPOINTS.values(), ids=CHECKPOINTS)
@pytest.mark.parametrize("name", NAMES)
def test_no_file_runs_whatever_it_is_called(
    tmp_path: Path, canary: Path, name: str, make: Callable[[Evil], bytes]
) -> None:
    path = write(tmp_path, name, make)
    doors: list[Callable[[], object]] = [
        lambda: read_tensors(path),
        lambda: load_weights("pose", str(path)),
        lambda: load_weights("detector", str(path)),
        lambda: load_backbone(build_pose_network("resnet18"), str(path)),
        lambda: convert(str(path), tmp_path / "out.safetensors", input_size_wh=(192, 256)),
    ]
    for door in doors:
        with pytest.raises(WeightsError):
            door()


@pytest.mark.parametrize("make", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_an_8_bit_network_is_no_pickle_either(
    tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Evil], bytes]
) -> None:
    path = write(tmp_path, "x.int8.safetensors", make)
    monkeypatch.setattr("posebatch.models.weights.quantized.quantized_file", lambda *_: path)
    with pytest.raises(WeightsError):
        load_quantized("pose", "simplebaseline_mobilenet_v2_256x192")


@pytest.mark.parametrize("make", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_nor_is_the_checkpoint_of_a_training(tmp_path: Path, canary: Path, make: Callable[[Evil], bytes]) -> None:
    write(tmp_path, CHECKPOINT_NAME, make)
    with pytest.raises(TrainingError):
        train(Line(), LoopSettings(steps=1), tmp_path)
    with contextlib.suppress(Exception):  # torch's own error will do: nobody else has written where it is called
        averaged_weights(tmp_path)
        pytest.fail("it was read")


COMMANDS: dict[str, list[str]] = {
    "run --pose": ["run", "{video}", "--output", "{folder}/out", "--pose", "{weights}"],
    "run --detector": ["run", "{video}", "--output", "{folder}/out", "--detector", "{weights}"],
    "plan --pose": ["plan", "{video}", "--output", "{folder}/out", "--pose", "{weights}"],
    "models convert": ["models", "convert", "{weights}", "{folder}/mine.safetensors", "--input-size", "192x256"],
}


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_commands_refuse_it(
    tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str], command: list[str], name: str
) -> None:
    weights = write(tmp_path, name, CHECKPOINTS["by torch"])
    video = write_tiny_video(tmp_path / "video.mp4")
    assert main([part.format(video=video, folder=tmp_path, weights=weights) for part in command]) == 2
    said = capsys.readouterr().err
    assert str(weights) in said
    assert "Traceback" not in said


@pytest.mark.parametrize("job", ["train_pose", "train_detector"])
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_a_training_refuses_it_as_a_start(
    tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str], job: str, name: str
) -> None:
    weights = write(tmp_path, name, CHECKPOINTS["by torch"])
    words = ("--data", tmp_path / "none.json", "--output", tmp_path / "out", "--start", weights)
    assert module_of(job).main([str(word) for word in words]) == 2
    assert str(weights) in capsys.readouterr().err


@pytest.fixture
def fetched_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSEBATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "RETRIES", cache.RETRIES.new(total=0))
    monkeypatch.delenv(cache.MIRROR_VARIABLE, raising=False)


@pytest.mark.usefixtures("fetched_here")
@pytest.mark.parametrize("make", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_a_mirror_cannot_make_it_run(
    tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Evil], bytes]
) -> None:
    with running_weight_server() as server:
        server.files[PAPER_FILE] = content(make(Evil(canary)))
        monkeypatch.setenv(cache.MIRROR_VARIABLE, server.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with pytest.raises(WeightsError):
            load_weights("pose", PAPER)
        assert server.requests == [PAPER_FILE]


@pytest.mark.s3
@pytest.mark.usefixtures("fetched_here")
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors", PAPER_FILE])
def test_nor_can_a_bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, canary: Path, name: str) -> None:
    bucket = f"evil-{uuid4().hex[:8]}"
    s3_server.client().create_bucket(Bucket=bucket)
    s3_server.client().put_object(Bucket=bucket, Key=name, Body=CHECKPOINTS["by torch"](Evil(canary)))
    for variable, value in s3_server.environment().items():
        monkeypatch.setenv(variable, value)
    s3.s3_client.cache_clear()
    try:
        for kind in ("pose", "detector"):
            with pytest.raises(WeightsError):
                load_weights(kind, f"s3://{bucket}/{name}")  # type: ignore[call-overload]
    finally:
        s3.s3_client.cache_clear()


# --- and nobody begins to ---------------------------------------------------------------------------------------------

UNPICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "pickletools"}

MAY_IMPORT_PICKLE = {
    "models.weights": "the name of its error",
    "benchmark.child": "from a process to its own child, through a folder that it has made",
}

RUN_WHAT_THEY_READ = {"torch.jit.load", "torch.package.PackageImporter", "torch.hub.load", "np.load", "pd.read_pickle"}


def calls(source: str) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def is_safe(call: ast.Call) -> bool:
    given: dict[str | None, Any] = {keyword.arg: keyword.value for keyword in call.keywords}
    chosen = given.get("weights_only")
    return isinstance(chosen, ast.Constant) and chosen.value is True


def test_torch_reads_weights_only() -> None:
    found = [
        (module, call) for module, source in SOURCES.items() for name, call in calls(source) if name == "torch.load"
    ]
    assert len(found) >= 3
    assert [module for module, call in found if not is_safe(call)] == []


def test_nobody_unpickles() -> None:
    users = {module for module, source in SOURCES.items() if imported(source) & UNPICKLERS}
    assert users == set(MAY_IMPORT_PICKLE)
    uses = {
        ast.unparse(node)
        for node in ast.walk(ast.parse(SOURCES["models.weights.files"]))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle"
    }
    assert uses == {"pickle.UnpicklingError"}
    suspects = {
        ast.unparse(call)
        for source in SOURCES.values()
        for name, call in calls(source)
        if name in RUN_WHAT_THEY_READ and not (name == "np.load" and "allow_pickle=False" in ast.unparse(call))
    }
    assert suspects == set()
