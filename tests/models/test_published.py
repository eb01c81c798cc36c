"""Published weights of other projects, loaded by name from a server and by path, and the commands for them."""

import io
import pickle
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from support.weight_files import (
    PAPER,
    PAPER_FILE,
    WeightServer,
    every_file,
    mmpose_checkpoint,
    paper_checkpoint,
    renamed_by_hash,
    running_weight_server,
)

from posebatch.cli.entry import main
from posebatch.core.errors import WeightsError
from posebatch.models.networks.person_detector import DetectorSettings, build_torchvision_detector, load_detector
from posebatch.models.networks.pose_network import load_pose_network
from posebatch.models.networks.pose_resnet import build_pose_network
from posebatch.models.weights import download, published
from posebatch.models.weights.cache import cache_folder, sha256_of
from posebatch.models.weights.files import load_backbone, load_into, load_weights, read_tensors, save_weights
from posebatch.models.weights.names import resolve
from posebatch.models.weights.published import PUBLISHED_POSES, TORCHVISION_BACKBONES, TORCHVISION_DETECTORS

SMALL = "mmpose_resnet50_256x192"
"""A registered name that these tests give to a small network, because only the layout matters."""

DETECTOR = "ssdlite320_mobilenet_v3_large"


def saved(content: Any, legacy: bool = False) -> bytes:
    """The bytes of ``torch.save``. ``legacy`` is the format before torch 1.6, in which mmpose still publishes."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


@pytest.fixture(scope="module")
def resnet18() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build_pose_network("resnet18").state_dict()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WeightServer]:
    """A mirror from the environment, an empty cache, no retries, and an empty working folder."""
    with running_weight_server() as running:
        monkeypatch.setenv("POSEBATCH_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("POSEBATCH_WEIGHTS", running.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(download, "RETRIES", download.RETRIES.new(total=0))
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        yield running


@pytest.fixture
def publish(server: WeightServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A function that serves bytes as the weights of a registered name, and returns the file name with their hash."""

    def serve(registry: Any, name: str, body: bytes, **changes: Any) -> str:
        entry = registry[name]
        if isinstance(entry, published.PublishedFile):
            entry = renamed_by_hash(entry, body)
            file = entry
        else:
            file = renamed_by_hash(entry.file, body) if entry.file.sha256_prefix else entry.file
            entry = replace(entry, file=file, **changes)
        monkeypatch.setitem(registry, name, entry)
        server.files[file.file_name] = body
        return file.file_name

    return serve


def assert_equal_states(ours: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[key], expected[key]) for key in expected)


def test_load_weights_reads_the_papers_checkpoint(server, publish):
    torch.manual_seed(1)
    state = build_pose_network("resnet50").state_dict()
    file_name = publish(PUBLISHED_POSES, PAPER, saved(paper_checkpoint(state), legacy=True))
    assert file_name == PAPER_FILE
    record, tensors = load_weights("pose", PAPER)
    assert_equal_states(tensors, state)
    assert (record.channel_order, record.grid_alignment, record.shift_flipped) == ("BGR", "origin", True)
    assert (record.input_size_wh, record.accuracy["AP"]) == ((192, 256), 0.704)
    Path(file_name).write_bytes(server.files[file_name])
    assert load_pose_network(file_name).record == load_pose_network(PAPER).record == record
    assert record.identity == f"{PAPER}@{sha256_of(Path(file_name))}"
    assert server.requests == [file_name]


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("legacy", [True, False])
def test_load_weights_reads_mmpose_checkpoints(server, publish, resnet18, version: int, legacy: bool):
    body = saved(mmpose_checkpoint(resnet18, version), legacy)
    file_name = publish(PUBLISHED_POSES, SMALL, body, architecture="resnet18")
    before = resolve("pose", SMALL)
    assert server.requests == [], "identifying pinned weights needs no download"
    record, tensors = load_weights("pose", SMALL)
    assert_equal_states(tensors, resnet18)
    assert record.channel_order == "RGB"
    Path(file_name).write_bytes(body)
    by_path = load_pose_network(f"./{file_name}").record
    assert before == record == by_path == resolve("pose", SMALL)
    assert record.identity == f"{SMALL}@{file_name}"


def test_read_tensors_accepts_arrays_of_numpy_1(tmp_path: Path, resnet18):
    """mmpose's files have the module names of numpy 1."""
    path = tmp_path / "old.pth"
    with zipfile.ZipFile(io.BytesIO(saved(mmpose_checkpoint(resnet18, 1)))) as new, zipfile.ZipFile(path, "w") as old:
        for entry in new.infolist():
            content = new.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in content
                content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            old.writestr(entry.filename, content)
    assert len(read_tensors(path)) == len(resnet18)


def test_load_weights_reads_torchvision_detectors(server, publish):
    state = build_torchvision_detector(DETECTOR, DetectorSettings()).state_dict()
    file_name = publish(TORCHVISION_DETECTORS, DETECTOR, saved(state))
    before = resolve("detector", DETECTOR)
    record, tensors = load_weights("detector", DETECTOR)
    assert_equal_states(tensors, state)
    Path(file_name).write_bytes(server.files[file_name])
    assert load_detector(file_name, DetectorSettings()).record == record == before
    assert record.identity == f"{DETECTOR}@{file_name}"


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v2"])
def test_load_backbone_reads_torchvision_classifiers(server, publish, architecture: str):
    torch.manual_seed(2)
    classifier = torchvision.models.get_model(architecture, num_classes=2).state_dict()
    file_name = publish(TORCHVISION_BACKBONES, architecture, saved(classifier))
    Path(file_name).write_bytes(server.files[file_name])
    save_file(classifier, "bare.safetensors")
    for name in (architecture, file_name, "bare.safetensors"):
        network = build_pose_network(architecture)
        head = network.final_layer.weight.clone()
        load_backbone(network, name)
        if architecture == "resnet18":
            assert torch.equal(network.layer4[1].conv2.weight, classifier["layer4.1.conv2.weight"])
        else:
            assert torch.equal(network.backbone[17].conv[2].weight, classifier["features.17.conv.2.weight"])
        assert torch.equal(network.final_layer.weight, head)
    with pytest.raises(WeightsError, match="a start for training a pose network"):
        load_weights("pose", f"./{file_name}")
    Path(file_name).write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="promises a sha256"):
        load_backbone(build_pose_network(architecture), file_name)


def test_load_backbone_reads_a_pose_network(tmp_path: Path, resnet18):
    path = tmp_path / "some.pth"
    path.write_bytes(saved(mmpose_checkpoint(resnet18, 1)))
    network = build_pose_network("resnet18")
    head = network.final_layer.weight.clone()
    load_backbone(network, str(path))
    assert torch.equal(network.conv1.weight, resnet18["conv1.weight"])
    assert torch.equal(network.final_layer.weight, head)
    with pytest.raises(WeightsError, match=r"some\.pth: .*missing \(layer1\.0\.conv3"):
        load_backbone(build_pose_network("resnet50"), str(path))


class Payload:
    """An object that creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (exec, (f"open({str(self.trace)!r}, 'w').close()",))


@pytest.mark.parametrize(
    ("write", "place"),
    [
        (saved, "at the top"),
        (saved, "among the tensors"),
        (saved, "beside them"),
        (saved, "in an array"),
        (lambda content: saved(content, legacy=True), "beside them"),
        (lambda content: pickle.dumps(content, protocol=2), "at the top"),
    ],
)
def test_load_weights_does_not_run_a_malicious_pickle(
    server, tmp_path: Path, write: Callable[[Any], bytes], place: str
):
    trace = tmp_path / "trace"
    payload = Payload(trace)
    contents = {
        "at the top": payload,
        "among the tensors": {"state_dict": {"conv1.weight": payload}},
        "beside them": {"state_dict": {}, "meta": payload},
        "in an array": {"state_dict": {}, "meta": np.array([payload], dtype=object)},
    }
    server.files[PAPER_FILE] = write(contents[place])
    Path(PAPER_FILE).write_bytes(server.files[PAPER_FILE])
    for name in (PAPER, PAPER_FILE):
        with pytest.raises(WeightsError, match=r"pose_resnet_50_256x192\.pth\.tar: (refused|not a readable)"):
            load_weights("pose", name)
    assert not trace.exists()
    pickle.loads(pickle.dumps(payload))
    assert trace.exists(), "the payload has no effect at all, so the test proves nothing"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not a readable torch file"),
        (b"<html>not found</html>", "not a readable|refused"),
        (saved({"x": torch.zeros(9)})[:-50], "not a readable torch file"),
        (saved(torch.zeros(1)), "holds no state_dict"),
        (saved({"state_dict": {"x": 1}}), "holds no state_dict"),
        (saved({}), r"none at all\) are of no layout"),
        (saved({"fc.weight": torch.zeros(1), "conv1.weight": torch.zeros(1)}), "weights of an image classifier"),
    ],
)
def test_load_weights_refuses_files_without_a_state_dict(server, body: bytes, message: str):
    Path(PAPER_FILE).write_bytes(body)
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights("pose", PAPER_FILE)
    assert PAPER_FILE in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("final_layer.bias"), r"1 missing \(final_layer\.bias\)"),
        (lambda s: s.update({"fc.bias": torch.zeros(3)}), r"1 left over \(fc\.bias\)"),
        (lambda s: s.update({"final_layer.bias": torch.zeros(16)}), r"final_layer\.bias \[16\] not \[17\]"),
    ],
)
def test_load_pose_network_refuses_wrong_foreign_keys_and_shapes(server, publish, resnet18, change, message: str):
    state = dict(resnet18)
    change(state)
    publish(PUBLISHED_POSES, PAPER, saved(paper_checkpoint(state)), architecture="resnet18")
    with pytest.raises(WeightsError, match=message) as caught:
        load_pose_network(PAPER)
    assert PAPER in str(caught.value)


def test_load_weights_refuses_another_architecture(server, publish, resnet18):
    publish(PUBLISHED_POSES, PAPER, saved(paper_checkpoint(resnet18)))
    with pytest.raises(WeightsError, match="these are the weights of resnet18, where resnet50 is wanted"):
        load_weights("pose", PAPER)


def test_resolve_and_load_refuse_a_file_with_another_hash(server):
    name = "td-hm_res50_8xb64-210e_coco-256x192-04af38ce_20220923.pth"
    Path(name).write_bytes(b"something else")
    for act in (resolve, load_weights):
        with pytest.raises(WeightsError, match="promises a sha256 that begins with 04af38ce"):
            act("pose", name)


@pytest.mark.parametrize("name", ["weights.pth", "weights.PT", "model.pth.tar", "model.pkl", "model.ckpt"])
def test_resolve_refuses_pickles_with_unknown_names(server, name: str):
    Path(name).write_bytes(b"")
    with pytest.raises(WeightsError, match=f"convert it once: posebatch models convert {name} "):
        resolve("pose", name)


@pytest.mark.parametrize("name", ["none.pth", PAPER_FILE, "./none.safetensors"])
def test_resolve_refuses_a_missing_file(server, name: str):
    with pytest.raises(WeightsError, match="no such weight file"):
        resolve("pose", name)


# --- the commands ------------------------------------------------------------------------------------------------


def test_convert_writes_a_file_equal_to_its_source(server, publish, resnet18, capsys: pytest.CaptureFixture[str]):
    publish(PUBLISHED_POSES, PAPER, saved(paper_checkpoint(resnet18)), architecture="resnet18")
    assert main(["models", "convert", PAPER, "mine.safetensors"]) == 0
    record, state = load_weights("pose", "mine.safetensors")
    assert_equal_states(state, resnet18)
    assert record == replace(resolve("pose", PAPER), sha256=sha256_of(Path("mine.safetensors")))
    assert record.identity in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file_name", "wrap", "options", "size_wh", "order"),
    [
        ("net_128x96.pth", lambda s: s, [], (96, 128), "BGR"),
        ("best.pth.tar", paper_checkpoint, ["--input-size", "96x128"], (96, 128), "BGR"),
        ("best.pth", lambda s: mmpose_checkpoint(s, 1), ["--input-size", "192x192"], (192, 192), "RGB"),
        ("net_256x192.pth", lambda s: s, ["--channel-order", "RGB", "--name", "ours"], (192, 256), "RGB"),
    ],
)
def test_convert_infers_the_record_or_takes_it_from_options(
    server, resnet18, file_name: str, wrap, options, size_wh, order: str
):
    Path(file_name).write_bytes(saved(wrap(resnet18)))
    assert main(["models", "convert", file_name, "out.safetensors", *options]) == 0
    record, state = load_weights("pose", "out.safetensors")
    assert_equal_states(state, resnet18)
    assert (record.architecture, record.input_size_wh, record.channel_order) == ("resnet18", size_wh, order)
    assert record.name == ("ours" if "--name" in options else file_name.partition(".")[0])
    assert (record.grid_alignment, record.shift_flipped) == ("origin", True)


@pytest.mark.parametrize(
    ("body", "options", "message"),
    [
        (saved, [], "best.pth: neither the file nor its name gives the input size"),
        (saved, ["--input-size", "100x100"], "best.pth: input_size_wh must be two multiples of 32"),
        (lambda s: saved({"x": torch.zeros(1)}), [], "best.pth: the names of the tensors (x) are of no layout"),
        (
            lambda s: saved(torchvision.models.resnet18().state_dict()),
            [],
            "best.pth: these are the weights of an image",
        ),
        (lambda s: b"", [], "best.pth: not a readable torch file"),
    ],
)
def test_convert_refuses_unusable_files(
    server, resnet18, capsys: pytest.CaptureFixture[str], body, options, message: str
):
    Path("best.pth").write_bytes(body(resnet18))
    assert main(["models", "convert", "best.pth", "out.safetensors", *options]) == 2
    assert message in capsys.readouterr().err
    assert not Path("out.safetensors").exists()


def test_convert_reports_a_missing_target_folder(server, resnet18, capsys: pytest.CaptureFixture[str]):
    Path("net_256x192.pth").write_bytes(saved(resnet18))
    assert main(["models", "convert", "net_256x192.pth", "nowhere/out.safetensors"]) == 2
    assert "nowhere/out.safetensors: cannot be written" in capsys.readouterr().err


def test_fetch_fills_the_cache(server, publish, capsys: pytest.CaptureFixture[str]):
    names = [publish(PUBLISHED_POSES, SMALL, b"pose"), publish(TORCHVISION_BACKBONES, "resnet18", b"backbone")]
    assert main(["models", "fetch", SMALL, "resnet18"]) == 0
    assert every_file(cache_folder()) == sorted(f"weights/{name}" for name in names)
    assert capsys.readouterr().out.split() == [str(cache_folder() / "weights" / name) for name in names]


def test_fetch_fills_a_mirror(server, publish, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    name = publish(PUBLISHED_POSES, SMALL, b"pose")
    assert main(["models", "fetch", SMALL, "--to", "mirror"]) == 0
    assert every_file(Path("mirror")) == [name]
    monkeypatch.setenv("POSEBATCH_WEIGHTS", "mirror")
    monkeypatch.setenv("POSEBATCH_CACHE", str(tmp_path / "other node"))
    server.files.clear()
    assert main(["models", "fetch", SMALL]) == 0
    assert every_file(tmp_path / "other node") == [f"weights/{name}"]


def test_fetch_downloads_all_networks_of_a_preset(server, publish):
    names = [
        publish(PUBLISHED_POSES, SMALL, b"pose"),
        publish(TORCHVISION_DETECTORS, "fasterrcnn_mobilenet_v3_large_320_fpn", b"detector"),
    ]
    assert main(["models", "fetch", "embedded", "balanced"]) == 0
    assert every_file(cache_folder()) == sorted(f"weights/{name}" for name in names)


def test_fetch_returns_2_when_a_download_fails(server, capsys: pytest.CaptureFixture[str]):
    assert main(["models", "fetch", SMALL]) == 2
    assert "the server said 404" in capsys.readouterr().err
    assert every_file(cache_folder()) == []


def test_resolve_prefers_the_record_to_the_file_name(server, resnet18):
    """A converted file has a record, so its name says nothing about its input."""
    record = replace(resolve("pose", SMALL), architecture="resnet18", name="ours")
    save_weights(Path("net_384x288.safetensors"), record, resnet18)
    network = build_pose_network("resnet18")
    load_into(network, load_weights("pose", "net_384x288.safetensors")[1], "ours")
    assert resolve("pose", "net_384x288.safetensors").input_size_wh == (192, 256)
