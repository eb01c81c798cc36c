"""Converted networks on disk: the same results with a file, without one, and after damage."""

from __future__ import annotations

import importlib.util
import os
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from posebatch.models.networks import converted, engines
from posebatch.models.networks.converted import KEPT_FILES, keep_converted
from posebatch.models.networks.engines import Placement, start_engine
from posebatch.models.networks.person_detector import DetectorSettings, load_detector
from posebatch.models.networks.pose_network import load_pose_network
from posebatch.models.weights.names import EMBEDDED

SIZE_WH = (48, 32)
CONTENT = (b"<graph/>", bytes(range(256)))


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("POSEBATCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "converted"


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()


class Conversion:
    """Counts how often a network is converted."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> converted.Converted:
        self.count += 1
        return CONTENT


def kept(convert: Conversion, seed: int = 0, size_wh: tuple[int, int] = SIZE_WH, batch: int = 4) -> converted.Converted:
    return keep_converted(network(seed), size_wh, batch, convert)


def test_conversion_is_kept_until_anything_changes_that_it_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    convert = Conversion()
    assert (kept(convert), kept(convert), convert.count) == (CONTENT, CONTENT, 1)
    kept(convert, seed=1)
    kept(convert, size_wh=(32, 48))
    kept(convert, batch=8)
    assert convert.count == 4
    activated = nn.Sequential(*network().children(), nn.ReLU())
    keep_converted(activated, SIZE_WH, 4, convert)
    assert convert.count == 5, "the same weights in other layers"
    monkeypatch.setattr(converted, "version", lambda name: f"next {name}")
    kept(convert)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
    kept(convert)
    assert convert.count == 7


def test_conversion_depends_on_the_source_of_the_networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ssdlite.py").write_text("forward = 1")
    monkeypatch.setattr(converted, "__file__", str(tmp_path / "converted.py"))
    convert = Conversion()
    kept(convert)
    (tmp_path / "ssdlite.py").write_text("forward = 2")
    kept(convert)
    assert convert.count == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "no file"])
def test_damaged_file_is_made_again(damage: str, cache: Path) -> None:
    convert = Conversion()
    kept(convert)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    if damage == "no file":
        path.unlink()
        path.mkdir()
        assert (kept(convert), convert.count) == (CONTENT, 2)
        return
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    path.write_bytes({"cut": whole[:-1], "flipped": flipped, "empty": b""}[damage])
    assert (kept(convert), convert.count, path.read_bytes()) == (CONTENT, 2, whole)
    assert (kept(convert), convert.count) == (CONTENT, 2)


@pytest.mark.parametrize("problem", ["file in place of the folder", "full disk", "no home"])
def test_cache_that_cannot_be_used_costs_only_time(
    problem: str, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no home") if problem == "no home" else OSError("no room")

    if problem == "file in place of the folder":
        cache.parent.write_text("a file")
    else:
        monkeypatch.setattr(converted, "cache_folder" if problem == "no home" else "write_atomically", fail)
    convert = Conversion()
    assert (kept(convert), kept(convert), convert.count) == (CONTENT, CONTENT, 2)


def test_processes_that_convert_at_once_leave_one_whole_file(cache: Path) -> None:
    together, results = threading.Barrier(4), []

    def convert() -> converted.Converted:
        together.wait(30)
        return CONTENT

    same = network()
    threads = [
        threading.Thread(target=lambda: results.append(keep_converted(same, SIZE_WH, 4, convert))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [CONTENT] * 4
    assert [path.suffix for path in cache.iterdir()] == [".network"]
    unused = Conversion()
    assert (keep_converted(same, SIZE_WH, 4, unused), unused.count) == (CONTENT, 0)


def test_cache_keeps_the_files_that_were_used_last(cache: Path) -> None:
    convert = Conversion()
    for batch in range(KEPT_FILES):
        before = {*cache.glob("*")}
        kept(convert, batch=batch)
        (made,) = {*cache.iterdir()} - before
        os.utime(made, (batch, batch))
    kept(convert, batch=0)  # used again
    kept(convert, batch=100)
    assert (len([*cache.iterdir()]), convert.count) == (KEPT_FILES, KEPT_FILES + 1)
    kept(convert, batch=0)
    assert convert.count == KEPT_FILES + 1
    kept(convert, batch=1)
    assert convert.count == KEPT_FILES + 2, "it was not used for the longest time"


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_engine_of_any_network_keeps_nothing_unless_asked(cache: Path) -> None:
    """The source of such a network is not known, so its conversion could be out of date."""
    start_engine(network(), SIZE_WH, Placement(engine="openvino"))
    assert not cache.exists()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_results_are_the_same_bytes_with_and_without_a_file(
    precision: engines.Precision, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placement = Placement("cpu", precision, "openvino")
    images = torch.randn(4, 3, 320, 320, generator=torch.Generator().manual_seed(0))
    crops = 255 * torch.rand(4, 3, 256, 192, generator=torch.Generator().manual_seed(0))

    def outputs() -> list[torch.Tensor]:
        detector = load_detector(EMBEDDED["detector"][0], DetectorSettings(placement=placement))
        pose = load_pose_network(EMBEDDED["pose"][0], placement)
        return [output.clone() for output in (*detector._engine(images), pose.heatmaps(crops))]  # type: ignore[attr-defined]

    with monkeypatch.context() as patch:  # as the model comes out of the conversion
        patch.setattr(engines, "serialized", lambda model, compress_to_fp16: (model, None))
        patch.setattr(engines, "keep_converted", lambda _network, _size, _batch, convert: convert())
        core = engines.openvino_core()
        patch.setattr(engines, "openvino_core", lambda: Passing(core))
        plain = outputs()
    made = outputs()
    assert len([*cache.iterdir()]) == 2
    with monkeypatch.context() as patch:
        patch.setattr(engines, "to_openvino", None)
        read = outputs()
    for expected, first, second in zip(plain, made, read, strict=True):
        assert torch.equal(expected, first)
        assert torch.equal(expected, second)


class Passing:
    """A core that passes a model through which is not serialized."""

    def __init__(self, core: object) -> None:
        self._core = core

    def read_model(self, model: object, weights: object) -> object:
        assert weights is None
        return model

    def __getattr__(self, name: str) -> object:
        return getattr(self._core, name)
