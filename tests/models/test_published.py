"""Weights of others, in their own layouts and under their own names, load by name from a server and by path."""

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
from posebatch.models.weights import cache
from posebatch.models.weights.cache import cache_folder, sha256_of
from posebatch.models.weights.files import load_backbone, load_into, load_weights, read_tensors, save_weights
from posebatch.models.weights.names import resolve
from posebatch.models.weights.published import PUBLISHED_POSES, TORCHVISION_BACKBONES, TORCHVISION_DETECTORS

SMALL = "mmpose_resnet50_256x192"
"""In these tests the name of a small network, where the layout matters and not the size."""

DETECTOR = "ssdlite320_mobilenet_v3_large"


def saved(content: Any, legacy: bool = False) -> bytes:
    """As torch writes it; ``legacy``: as it did before 1.6, and as mmpose still publishes."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


@pytest.fixture(scope="module")
def resnet18() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build_pose_network("resnet18").state_dict()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WeightServer]:
    """A mirror that the environment names, an empty cache, no patience, and us standing in an empty folder."""
    with running_weight_server() as running:
        monkeypatch.setenv("POSEBATCH_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("POSEBATCH_WEIGHTS", running.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(cache, "RETRIES", cache.RETRIES.new(total=0))
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        yield running


@pytest.fixture
def publish(server: WeightServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Serve content as the weights of a registered name; returns the file's name, which then holds the right hash."""

    def serve(registry: Any, name: str, body: bytes, **changes: Any) -> str:
        entry = registry[name]
        if isinstance(entry, cache.PublishedFile):
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


def test_the_papers_checkpoint(server, publish):
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
def test_mmposes_checkpoints(server, publish, resnet18, version: int, legacy: bool):
    body = saved(mmpose_checkpoint(resnet18, version), legacy)
    file_name = publish(PUBLISHED_POSES, SMALL, body, architecture="resnet18")
    before = resolve("pose", SMALL)
    assert server.requests == [], "what is pinned needs no download to be identified"
    record, tensors = load_weights("pose", SMALL)
    assert_equal_states(tensors, resnet18)
    assert record.channel_order == "RGB"
    Path(file_name).write_bytes(body)
    by_path = load_pose_network(f"./{file_name}").record
    assert before == record == by_path == resolve("pose", SMALL)
    assert record.identity == f"{SMALL}@{file_name}"


def test_arrays_of_numpy_1_are_read(tmp_path: Path, resnet18):
    """mmpose's were written when numpy called its modules so."""
    path = tmp_path / "old.pth"
    with zipfile.ZipFile(io.BytesIO(saved(mmpose_checkpoint(resnet18, 1)))) as new, zipfile.ZipFile(path, "w") as old:
        for entry in new.infolist():
            content = new.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in content
                content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            old.writestr(entry.filename, content)
    assert len(read_tensors(path)) == len(resnet18)


def test_torchvisions_detectors(server, publish):
    state = build_torchvision_detector(DETECTOR, DetectorSettings()).state_dict()
    file_name = publish(TORCHVISION_DETECTORS, DETECTOR, saved(state))
    before = resolve("detector", DETECTOR)
    record, tensors = load_weights("detector", DETECTOR)
    assert_equal_states(tensors, state)
    Path(file_name).write_bytes(server.files[file_name])
    assert load_detector(file_name, DetectorSettings()).record == record == before
    assert record.identity == f"{DETECTOR}@{file_name}"


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v2"])
def test_torchvisions_classifiers_start_a_training(server, publish, architecture: str):
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


def test_a_backbone_comes_out_of_a_pose_network_too(tmp_path: Path, resnet18):
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
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (exec, (f"open({str(self.trace)!r}, 'w').close()",))


@pytest.mark.parametrize(
    "write",
    [
        saved,
        lambda content: saved(content, legacy=True),
        lambda content: pickle.dumps(content, protocol=2),
    ],
)
@pytest.mark.parametrize("place", ["at the top", "among the tensors", "beside them", "in an array"])
def test_a_malicious_pickle_does_not_run(server, tmp_path: Path, write: Callable[[Any], bytes], place: str):
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
    assert trace.exists(), "the payload works"


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
def test_a_file_that_holds_something_else(server, body: bytes, message: str):
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
def test_keys_and_shapes_of_others_must_fit_too(server, publish, resnet18, change, message: str):
    state = dict(resnet18)
    change(state)
    publish(PUBLISHED_POSES, PAPER, saved(paper_checkpoint(state)), architecture="resnet18")
    with pytest.raises(WeightsError, match=message) as caught:
        load_pose_network(PAPER)
    assert PAPER in str(caught.value)


def test_another_architecture_is_refused(server, publish, resnet18):
    publish(PUBLISHED_POSES, PAPER, saved(paper_checkpoint(resnet18)))
    with pytest.raises(WeightsError, match="these are the weights of resnet18, where resnet50 is wanted"):
        load_weights("pose", PAPER)


def test_a_file_that_is_not_what_its_name_says(server):
    name = "td-hm_res50_8xb64-210e_coco-256x192-04af38ce_20220923.pth"
    Path(name).write_bytes(b"something else")
    for act in (resolve, load_weights):
        with pytest.raises(WeightsError, match="promises a sha256 that begins with 04af38ce"):
            act("pose", name)


@pytest.mark.parametrize("name", ["weights.pth", "weights.PT", "model.pth.tar", "model.pkl", "model.ckpt"])
def test_pickles_of_unknown_names_must_be_converted(server, name: str):
    Path(name).write_bytes(b"")
    with pytest.raises(WeightsError, match=f"convert it once: posebatch models convert {name} "):
        resolve("pose", name)


@pytest.mark.parametrize("name", ["none.pth", PAPER_FILE, "./none.safetensors"])
def test_a_file_that_is_not_there(server, name: str):
    with pytest.raises(WeightsError, match="no such weight file"):
        resolve("pose", name)


# --- the commands ------------------------------------------------------------------------------------------------


def test_convert_writes_what_loads_as_the_source_did(server, publish, resnet18, capsys: pytest.CaptureFixture[str]):
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
def test_convert_finds_out_or_is_told(server, resnet18, file_name: str, wrap, options, size_wh, order: str):
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
def test_convert_refuses(server, resnet18, capsys: pytest.CaptureFixture[str], body, options, message: str):
    Path("best.pth").write_bytes(body(resnet18))
    assert main(["models", "convert", "best.pth", "out.safetensors", *options]) == 2
    assert message in capsys.readouterr().err
    assert not Path("out.safetensors").exists()


def test_convert_into_a_folder_that_is_not_there(server, resnet18, capsys: pytest.CaptureFixture[str]):
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


def test_a_preset_is_fetched_as_a_whole(server, publish):
    names = [
        publish(PUBLISHED_POSES, SMALL, b"pose"),
        publish(TORCHVISION_DETECTORS, "fasterrcnn_mobilenet_v3_large_320_fpn", b"detector"),
    ]
    assert main(["models", "fetch", "embedded", "balanced"]) == 0
    assert every_file(cache_folder()) == sorted(f"weights/{name}" for name in names)


def test_what_cannot_be_fetched_ends_with_2(server, capsys: pytest.CaptureFixture[str]):
    assert main(["models", "fetch", SMALL]) == 2
    assert "the server said 404" in capsys.readouterr().err
    assert every_file(cache_folder()) == []


def test_saved_files_of_ours_come_from_any_name(server, resnet18):
    """What was converted once is one of ours: nothing is guessed from its name again."""
    record = replace(resolve("pose", SMALL), architecture="resnet18", name="ours")
    save_weights(Path("net_384x288.safetensors"), record, resnet18)
    network = build_pose_network("resnet18")
    load_into(network, load_weights("pose", "net_384x288.safetensors")[1], "ours")
    assert resolve("pose", "net_384x288.safetensors").input_size_wh == (192, 256)
