"""Weight files of our own: records, strict keys and shapes, names."""

import json
import pickle
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import save_file

from posebatch.core.errors import WeightsError
from posebatch.models.networks.pose_network import load_pose_network
from posebatch.models.networks.pose_resnet import build_pose_network
from posebatch.models.weights.cache import sha256_of
from posebatch.models.weights.convert import convert
from posebatch.models.weights.files import load_backbone, load_into, load_weights, save_weights
from posebatch.models.weights.names import EMBEDDED, resolve, weight_file

POSE = "simplebaseline_mobilenet_v2_w175_256x192"
DETECTOR = "ssdlite_mobilenet_v2_320"


@pytest.fixture(scope="module")
def pose():
    return load_weights("pose", POSE)


def write_header(path, **changes):
    """A weight file with one small tensor, and the embedded pose record with some of its JSON changed."""
    body = asdict(resolve("pose", POSE))
    del body["sha256"]
    body = {"format_version": 1, "kind": "pose", **body, **changes}
    header = json.dumps({key: value for key, value in body.items() if value is not None})
    save_file({"x": torch.zeros(1)}, path, metadata={"posebatch": header})


def test_load_weights_returns_saved_weights(tmp_path, pose):
    record, state = pose
    path = tmp_path / "mine.safetensors"
    saved = save_weights(path, replace(record, name="mine"), state)
    loaded, tensors = load_weights("pose", str(path))
    assert loaded == saved
    assert loaded.sha256 == sha256_of(path)
    assert loaded.identity == f"mine@{sha256_of(path)}"
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[key], state[key]) and tensors[key].dtype == state[key].dtype for key in state)


def test_a_calibration_is_part_of_the_file_and_of_the_identity(tmp_path, pose):
    record, state = pose
    plain, curve = replace(record, name="mine", score_calibration=()), ((0.0, 0.0), (0.4, 0.8), (1.0, 1.0))
    saved = [save_weights(tmp_path / f"{n}.safetensors", replace(plain, score_calibration=c), state)
             for n, c in enumerate(((), curve))]  # fmt: skip
    loaded = [resolve("pose", str(tmp_path / f"{n}.safetensors")) for n in range(2)]
    assert loaded == saved
    assert [record.score_calibration for record in loaded] == [(), curve]
    assert loaded[0].identity != loaded[1].identity
    assert b"score_calibration" not in (tmp_path / "0.safetensors").read_bytes()[:8192]  # as older versions write it


def test_package_holds_at_most_40_megabytes_of_weights():
    folder = weight_file("pose", POSE).parent
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 40e6
    names = {path.name.partition(".")[0] for path in folder.iterdir()}
    assert names == {*EMBEDDED["pose"], *EMBEDDED["detector"]}


@pytest.mark.parametrize("name", EMBEDDED["pose"])
def test_every_pose_network_of_the_package_has_a_calibration(name):
    assert len(resolve("pose", name).score_calibration) > 2


def test_convert_keeps_a_calibration_only_for_the_same_input(tmp_path):
    renamed = convert(POSE, tmp_path / "same.safetensors", name="same")
    larger = convert(POSE, tmp_path / "larger.safetensors", input_size_wh=(288, 384))
    assert renamed.score_calibration == resolve("pose", POSE).score_calibration
    assert larger.score_calibration == ()


def test_load_backbone_names_what_replaces_removed_weights(pose):
    network = build_pose_network(resolve("pose", POSE).architecture)
    with pytest.raises(WeightsError, match="not in the package since version"):
        load_backbone(network, "simplebaseline_mobilenet_v2_256x192")


def test_save_weights_twice_gives_equal_bytes(tmp_path, pose):
    assert save_weights(tmp_path / "a", *pose) == save_weights(tmp_path / "b", *pose)


def test_load_into_converts_number_formats(pose):
    _, state = pose
    network = build_pose_network(resolve("pose", POSE).architecture)
    load_into(network, state, POSE)
    assert state["final_layer.weight"].dtype == torch.float16
    assert network.final_layer.weight.dtype == torch.float32
    assert torch.equal(network.final_layer.weight, state["final_layer.weight"].float())


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such weight file"),
        (lambda path: path.write_bytes(b""), "not a readable safetensors file"),
        (lambda path: path.mkdir(), "not a readable safetensors file"),
        (lambda path: path.write_text("<html>not found</html>"), "not a readable safetensors file"),
        (lambda path: path.write_bytes(pickle.dumps({"state_dict": {}})), "not a readable safetensors file"),
        (lambda path: torch.save({"x": torch.zeros(1)}, path), "not a readable safetensors file"),
        (lambda path: save_file({"x": torch.zeros(1)}, path), "without a posebatch record"),
        (lambda path: write_header(path, format_version=2), "format version 2"),
        (lambda path: write_header(path, kind="detector"), "'detector' where 'pose' is wanted"),
        (lambda path: write_header(path, kind=None), "kind"),
        (lambda path: write_header(path, std=None), "missing or unknown: std"),
        (lambda path: write_header(path, colour="RGB"), "missing or unknown: colour"),
        (lambda path: write_header(path, architecture="vgg16"), "unknown architecture 'vgg16'"),
        (lambda path: write_header(path, channel_order="GRB"), "channel_order"),
        (lambda path: write_header(path, mean=[0.5]), "three numbers"),
        (lambda path: write_header(path, input_size_wh=[190, 256]), "multiples of 32"),
        (lambda path: write_header(path, keypoint_names=["nose"]), "keypoint_names"),
        (lambda path: write_header(path, score_calibration=[[0, 0]]), "two knots or more"),
        (lambda path: write_header(path, score_calibration=[[0, 0], [0.5, 0.5], [0.4, 1]]), "knots or more that rise"),
        (lambda path: write_header(path, score_calibration=[[0, 0], [0.5, 0.5], [1, 0.5]]), "knots or more that rise"),
        (lambda path: write_header(path, score_calibration=[[0, 0], [1, 1.1]]), "must lie in 0..1"),
        (lambda path: write_header(path, score_calibration=[[0, 0], [1, float("nan")]]), "must lie in 0..1"),
        (lambda path: write_header(path, score_calibration=[0, 1]), "pairs of numbers"),
    ],
)
def test_resolve_refuses_foreign_or_damaged_files(tmp_path, write, message):
    path = tmp_path / "some.safetensors"
    write(path)
    with pytest.raises(WeightsError, match=message) as caught:
        resolve("pose", str(path))
    assert str(path) in str(caught.value)


def test_resolve_refuses_a_header_that_is_no_json_object(tmp_path):
    for header in ("", "[]", "3", "{}"):
        path = tmp_path / "some.safetensors"
        save_file({"x": torch.zeros(1)}, path, metadata={"posebatch": header})
        with pytest.raises(WeightsError, match="record does not fit"):
            resolve("pose", str(path))


def test_load_weights_refuses_a_truncated_file(tmp_path, pose):
    path = tmp_path / "some.safetensors"
    save_weights(path, *pose)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        load_weights("pose", str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.clear(), r"names of the tensors \(none at all\) are of no layout"),
        (lambda s: [s.pop(k) for k in [*s] if k[:8] == "backbone"], r"missing \(backbone\.0\.0\.weight, .*, \.\.\.\)"),
        (lambda s: s.pop("final_layer.bias"), r"1 missing \(final_layer\.bias\)"),
        (lambda s: s.update({"fc.bias": torch.zeros(3)}), r"1 left over \(fc\.bias\)"),
        (lambda s: s.update({"final_layer.bias": torch.zeros(16)}), r"final_layer\.bias \[16\] not \[17\]"),
        (lambda s: s.update({"module.final_layer.bias": s.pop("final_layer.bias")}), "1 missing .*; 1 left over"),
    ],
)
def test_load_pose_network_refuses_wrong_keys_and_shapes(tmp_path, pose, change, message):
    record, state = pose
    state = dict(state)
    change(state)
    path = tmp_path / "some.safetensors"
    save_weights(path, record, state)
    with pytest.raises(WeightsError, match=message) as caught:
        load_pose_network(str(path))
    assert str(path) in str(caught.value)


def test_load_pose_network_refuses_a_record_of_another_architecture(tmp_path, pose):
    record, state = pose
    path = tmp_path / "some.safetensors"
    save_weights(path, replace(record, architecture="resnet18"), state)
    with pytest.raises(WeightsError, match="weights of mobilenet_v2_w175_d128_centred, where resnet18 is wanted"):
        load_pose_network(str(path))


def test_load_into_ignores_batch_norm_counters(pose):
    _, state = pose
    network = build_pose_network(resolve("pose", POSE).architecture)
    load_into(network, {key: tensor for key, tensor in state.items() if "num_batches" not in key}, POSE)
    load_into(network, {**state, "old.num_batches_tracked": torch.zeros(())}, POSE)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("pose", "", "no pose is called ''"),
        ("pose", "simplebaseline_mobilenetv2", f"did you mean {POSE}"),
        ("pose", DETECTOR, "no pose is called"),
        ("detector", "ssdlite_mobilenet_v2", f"did you mean {DETECTOR}"),
        ("detector", "faster_rcnn_resnet50", "did you mean fasterrcnn_resnet50_fpn_v2"),
        (
            "pose",
            "simplebaseline_mobilenet_v2_256x192",
            "since version 0.2.0; take simple.*_relabelled",
        ),
        ("detector", "zzz", "no detector is called 'zzz'. `posebatch models` lists them"),
    ],
)
def test_resolve_suggests_the_nearest_name(kind, name, message):
    with pytest.raises(WeightsError, match=message):
        resolve(kind, name)


def test_identity_names_the_hash_of_the_weights():
    for kind, names in EMBEDDED.items():
        for name in names:
            assert resolve(kind, name).identity == f"{name}@{sha256_of(weight_file(kind, name))}"
    name = "fcos_resnet50_fpn"
    assert resolve("detector", name).identity == f"{name}@fcos_resnet50_fpn_coco-99b0c9b7.pth"
