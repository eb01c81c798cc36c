"""Malicious weight files: no code in them runs, whatever their form, and by whichever function they are read."""

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
from posebatch.models.weights import download
from posebatch.models.weights.convert import convert
from posebatch.models.weights.environment import MIRROR_VARIABLE
from posebatch.models.weights.files import load_backbone, load_weights, read_tensors
from posebatch.models.weights.quantized import load_quantized
from posebatch.storage import s3
from posebatch.training.loop import CHECKPOINT_NAME, LoopSettings, averaged_weights, train


class Evil:
    """Creates a folder when it is unpickled."""

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

READ_AS_PICKLE = ["x.pth", "x.pth.tar", "x.pt", "x.bin", "x.ckpt", "x.pkl", "X.PTH", PAPER_FILE]
READ_AS_SAFETENSORS = ["x.safetensors", "x"]


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """The folder that code in a weight file would create; the test fails if it exists at the end."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code in the file ran"


def test_attack_works_on_an_unprotected_reader(tmp_path: Path) -> None:
    """Otherwise the tests below would prove nothing."""
    for number, (name, make) in enumerate(CHECKPOINTS.items()):
        path = tmp_path / str(number)
        path.write_bytes(make(Evil(tmp_path / f"canary {number}")))
        with contextlib.suppress(Exception):  # some are not files of torch, but their code runs before it notices
            torch.load(path, weights_only=False)
        assert (tmp_path / f"canary {number}").exists() is (name not in {"nothing", "as if compiled by torch"}), name


def write(folder: Path, name: str, make: Callable[[Evil], bytes]) -> Path:
    path = folder / name
    path.write_bytes(make(Evil(folder / "canary")))
    return path


@pytest.mark.parametrize(
    ("form", "name"),
    [
        *((form, name) for form in CHECKPOINTS for name in (READ_AS_PICKLE[0], READ_AS_SAFETENSORS[0])),
        *(("by torch", name) for name in (*READ_AS_PICKLE[1:], *READ_AS_SAFETENSORS[1:])),
    ],
)
def test_weight_readers_run_no_code(tmp_path: Path, canary: Path, form: str, name: str) -> None:
    """The suffix selects one of two readers: each of them meets every form, and each suffix meets one."""
    path = write(tmp_path, name, CHECKPOINTS[form])
    readers: list[Callable[[], object]] = [
        lambda: read_tensors(path),
        lambda: load_weights("pose", str(path)),
        lambda: load_weights("detector", str(path)),
        lambda: load_backbone(build_pose_network("resnet18"), str(path)),
        lambda: convert(str(path), tmp_path / "out.safetensors", input_size_wh=(192, 256)),
    ]
    for read in readers:
        with pytest.raises(WeightsError):
            read()


@pytest.mark.parametrize("form", ["nothing", "a bare pickle", "by torch"])
def test_8_bit_weight_reader_runs_no_code(
    tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    path = write(tmp_path, "x.int8.safetensors", CHECKPOINTS[form])
    monkeypatch.setattr("posebatch.models.weights.quantized.quantized_file", lambda *_: path)
    with pytest.raises(WeightsError):
        load_quantized("pose", "simplebaseline_mobilenet_v2_256x192_relabelled")


@pytest.mark.parametrize("form", ["a bare pickle", "by torch", "by an old torch", "at the top"])
def test_training_checkpoint_runs_no_code(tmp_path: Path, canary: Path, form: str) -> None:
    write(tmp_path, CHECKPOINT_NAME, CHECKPOINTS[form])
    with pytest.raises(TrainingError):
        train(Line(), LoopSettings(steps=1), tmp_path)
    # an error of torch will do: only the training itself writes where this is called
    with pytest.raises(Exception):  # noqa: B017, PT011
        averaged_weights(tmp_path)


COMMANDS: dict[str, list[str]] = {
    "run --pose": ["run", "{video}", "--output", "{folder}/out", "--pose", "{weights}"],
    "run --detector": ["run", "{video}", "--output", "{folder}/out", "--detector", "{weights}"],
    "plan --pose": ["plan", "{video}", "--output", "{folder}/out", "--pose", "{weights}"],
    "models convert": ["models", "convert", "{weights}", "{folder}/mine.safetensors", "--input-size", "192x256"],
}


@pytest.mark.parametrize(
    ("command", "name"), [*((command, "x.pth") for command in COMMANDS), ("run --pose", "x.safetensors")]
)
def test_commands_refuse_malicious_weights(
    tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str], command: str, name: str
) -> None:
    weights = write(tmp_path, name, CHECKPOINTS["by torch"])
    video = write_tiny_video(tmp_path / "video.mp4")
    assert main([part.format(video=video, folder=tmp_path, weights=weights) for part in COMMANDS[command]]) == 2
    stderr = capsys.readouterr().err
    assert str(weights) in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize(("job", "name"), [("train_pose", "x.pth"), ("train_detector", "x.safetensors")])
def test_training_refuses_malicious_start_weights(
    tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str], job: str, name: str
) -> None:
    weights = write(tmp_path, name, CHECKPOINTS["by torch"])
    arguments = ("--data", tmp_path / "none.json", "--output", tmp_path / "out", "--start", weights)
    assert module_of(job).main([str(argument) for argument in arguments]) == 2
    assert str(weights) in capsys.readouterr().err


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSEBATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "RETRIES", download.RETRIES.new(total=0))
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize("form", ["a bare pickle", "by torch"])
def test_weights_from_a_mirror_run_no_code(canary: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    with running_weight_server() as server:
        server.files[PAPER_FILE] = content(CHECKPOINTS[form](Evil(canary)))
        monkeypatch.setenv(MIRROR_VARIABLE, server.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with pytest.raises(WeightsError):
            load_weights("pose", PAPER)
        assert server.requests == [PAPER_FILE]


@pytest.mark.s3
@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_weights_from_a_bucket_run_no_code(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, canary: Path, name: str
) -> None:
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


# --- sources ---------------------------------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[2]
ALL_SOURCES = {**SOURCES, **{path.stem: path.read_text() for path in (ROOT / "jobs").rglob("*.py")}}
"""The package, and the scripts beside it."""

UNPICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "pickletools"}

MAY_IMPORT_PICKLE = {
    "models.weights.files": "the class of its error",
    "child_process": "a benchmark passes values to its own child process, through a folder that it made",
}

RUN_WHAT_THEY_READ = {"torch.jit.load", "torch.package.PackageImporter", "torch.hub.load", "np.load", "pd.read_pickle"}


def calls(source: str) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def is_safe(call: ast.Call) -> bool:
    arguments: dict[str | None, Any] = {keyword.arg: keyword.value for keyword in call.keywords}
    chosen = arguments.get("weights_only")
    return isinstance(chosen, ast.Constant) and chosen.value is True


def test_torch_load_reads_weights_only() -> None:
    loads = [
        (module, call) for module, source in ALL_SOURCES.items() for name, call in calls(source) if name == "torch.load"
    ]
    assert len(loads) >= 3
    assert [module for module, call in loads if not is_safe(call)] == []


def test_no_module_unpickles() -> None:
    users = {module for module, source in ALL_SOURCES.items() if imported(source) & UNPICKLERS}
    assert users == set(MAY_IMPORT_PICKLE)
    uses = {
        ast.unparse(node)
        for node in ast.walk(ast.parse(SOURCES["models.weights.files"]))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle"
    }
    assert uses == {"pickle.UnpicklingError"}
    suspects = {
        ast.unparse(call)
        for source in ALL_SOURCES.values()
        for name, call in calls(source)
        if name in RUN_WHAT_THEY_READ and not (name == "np.load" and "allow_pickle=False" in ast.unparse(call))
    }
    assert suspects == set()
