"""Write golden.npz: what the paper's own code makes of the inputs in `parity_rules`.

    python tests/parity/make_golden.py CHECKOUT DARK_CHECKOUT

The arguments are checkouts of the public repositories microsoft/human-pose-estimation.pytorch (commit 49f3f44), the
paper's code, and ilovepose/DarkPose (commit 0185b42), that of DARK. Needs, besides this package's dependencies for
training, easydict, json_tricks and opencv-python-headless; written with OpenCV 4.10, whose ``warpAffine`` still rounds
positions to 1/32 pixel as it did for the paper. Nothing of these repositories is copied here but the numbers that they
compute.
"""

import argparse
import importlib.util
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import parity_rules as rules
import torch
import yaml
from torchvision import transforms

HERE = Path(__file__).parent


def import_reference(checkout: Path) -> types.SimpleNamespace:
    """The modules of the paper's code; what it can only build with a compiler or run on a GPU is replaced."""
    sys.path.insert(0, str(checkout / "lib"))
    for compiled in ("cpu_nms", "gpu_nms"):
        stub = types.ModuleType(f"nms.{compiled}")
        setattr(stub, compiled, None)
        sys.modules[stub.__name__] = stub
    torch.Tensor.cuda = lambda self, *_, **__: self
    load = importlib.import_module
    config_module, cv2 = load("core.config"), load("cv2")
    config = config_module.config
    settings = yaml.safe_load((checkout / "experiments/coco/resnet50/256x192_d256x3_adam_lr1e-3.yaml").read_text())
    for section, values in settings.items():
        if not isinstance(values, dict):
            config[section] = values
            continue
        for key, value in values.items():
            config[section][key] = {**config[section][key], **value} if key == "EXTRA" else value
    config.MODEL.EXTRA = config_module.edict(config.MODEL.EXTRA)
    config.DEBUG.DEBUG = False
    config.TEST.USE_GT_BBOX = False
    return types.SimpleNamespace(
        config=config,
        cv2=cv2,
        validate=load("core.function").validate,
        get_final_preds=load("core.inference").get_final_preds,
        COCODataset=load("dataset.coco").COCODataset,
        get_pose_net=load("models.pose_resnet").get_pose_net,
        oks_nms=load("nms.nms").oks_nms,
        transforms=load("utils.transforms"),
    )


def set_size(reference: types.SimpleNamespace, input_wh: tuple[int, int]) -> None:
    reference.config.MODEL.IMAGE_SIZE = np.array(input_wh)
    reference.config.MODEL.EXTRA.HEATMAP_SIZE = np.array(input_wh) // 4


def make_dataset(reference: types.SimpleNamespace, transform=None, db=()):
    """The paper's data set without COCO's files: entries as `_load_coco_person_detection_results` makes them."""

    class Dataset(reference.COCODataset):
        def __init__(self):
            config = reference.config
            super(reference.COCODataset, self).__init__(config, "", "test", False, transform)
            self.num_joints = 17
            self.flip_pairs = [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10], [11, 12], [13, 14], [15, 16]]
            self.aspect_ratio = config.MODEL.IMAGE_SIZE[0] * 1.0 / config.MODEL.IMAGE_SIZE[1]
            self.oks_thre, self.in_vis_thre = config.TEST.OKS_THRE, config.TEST.IN_VIS_THRE
            self.db = list(db)

        def evaluate(self, config, preds, output_dir, all_boxes, *args):
            self.preds, self.all_boxes = preds, all_boxes
            return super().evaluate(config, preds, output_dir, all_boxes, *args)

        def _write_coco_keypoint_results(self, keypoints, res_file):
            self.results = keypoints

    return Dataset()


def make_network(reference: types.SimpleNamespace, layers: int) -> torch.nn.Module:
    reference.config.MODEL.EXTRA.NUM_LAYERS = layers
    network = reference.get_pose_net(reference.config, is_train=False)
    state = {
        key: torch.from_numpy(rules.weight(key, tuple(value.shape))) for key, value in network.state_dict().items()
    }
    network.load_state_dict(state)
    return network.eval()


def geometry(reference: types.SimpleNamespace) -> dict[str, np.ndarray]:
    set_size(reference, rules.CROP_WH)
    dataset = make_dataset(reference)
    centres, scales = zip(*(dataset._box2cs(box) for box in rules.GEOMETRY_BOXES), strict=True)
    get_affine = reference.transforms.get_affine_transform
    to_crop = [get_affine(c, s, 0, rules.CROP_WH) for c, s in zip(centres, scales, strict=True)]
    preds, maxvals = reference.get_final_preds(reference.config, rules.heatmaps(), np.array(centres), np.array(scales))
    crops = [
        reference.cv2.warpAffine(rules.frame(1), trans, rules.CROP_WH, flags=reference.cv2.INTER_LINEAR)
        for trans in to_crop[:6]
    ]
    return {
        "centre": np.array(centres),
        "scale": np.array(scales),
        "to_crop": np.array(to_crop),
        "crops": np.array(crops)[:, ::7, ::5],
        "decoded": np.concatenate([preds, maxvals], axis=2).astype(np.float32),
    }


def dark(checkout: Path, centres: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """DARK's decoding; its module needs those of the paper's code, which `import_reference` has loaded."""
    spec = importlib.util.spec_from_file_location("dark_inference", checkout / "lib/core/inference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = types.SimpleNamespace(TEST=types.SimpleNamespace(BLUR_KERNEL=11))
    preds, maxvals = module.get_final_preds(config, rules.heatmaps(), centres, scales)
    return np.concatenate([preds, maxvals], axis=2).astype(np.float32)


def forward(reference: types.SimpleNamespace) -> dict[str, np.ndarray]:
    set_size(reference, rules.NETWORK_WH)
    images = torch.from_numpy(rules.network_input())
    with torch.no_grad():
        return {f"resnet{n}": make_network(reference, n)(images)[:, :, ::3, ::3].numpy() for n in rules.RESNETS}


def no_loss(*_: torch.Tensor) -> torch.Tensor:
    return torch.zeros(())


def end_to_end(reference: types.SimpleNamespace) -> dict[str, np.ndarray]:
    """Everything, through the paper's own `validate`: pictures from files, OpenCV's BGR, its loop, its rescoring."""
    set_size(reference, rules.NETWORK_WH)
    network = make_network(reference, rules.END_TO_END_RESNET)
    normalize = transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    transform = transforms.Compose([transforms.ToTensor(), normalize])
    golden = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rules.NUM_FRAMES):
            bgr = rules.frame(number)[:, :, ::-1]
            reference.cv2.imwrite(f"{folder}/{number:012d}.png", np.ascontiguousarray(bgr))
        for name, flip, shift in (("plain", False, False), ("flip", True, False), ("flip_shift", True, True)):
            reference.config.TEST.FLIP_TEST, reference.config.TEST.SHIFT_HEATMAP = flip, shift
            dataset = make_dataset(reference, transform)
            for number, box, score in rules.PERSONS:
                centre, scale = dataset._box2cs(box)
                dataset.db.append(
                    {
                        "image": f"{folder}/{number:012d}.png",
                        "center": centre,
                        "scale": scale,
                        "score": score,
                        "joints_3d": np.zeros((17, 3)),
                        "joints_3d_vis": np.zeros((17, 3)),
                    }
                )
            loader = torch.utils.data.DataLoader(dataset, batch_size=4)
            reference.validate(reference.config, loader, dataset, network, no_loss, folder, folder)
            golden[f"keypoints_{name}"] = dataset.preds
            golden[f"scores_{name}"] = np.array([person["score"] for persons in dataset.results for person in persons])
    return golden


def scoring(reference: types.SimpleNamespace) -> dict[str, np.ndarray]:
    """Rescoring and OKS-NMS of a crowd, by the paper's `evaluate` and by its `oks_nms` alone."""
    keypoints, box_scores, areas = rules.crowd()
    dataset = make_dataset(reference)
    boxes = np.zeros((len(keypoints), 6))
    boxes[:, 4], boxes[:, 5] = areas, box_scores
    with tempfile.TemporaryDirectory() as folder:
        dataset.evaluate(reference.config, keypoints, folder, boxes, [f"{0:012d}.png"] * len(keypoints))
    persons = [{"keypoints": k, "score": s, "area": a} for k, s, a in zip(keypoints, box_scores, areas, strict=True)]
    return {
        "rescored": np.array([person["score"] for person in dataset.results[0]]),
        "kept_rescored": np.array([np.flatnonzero(areas == person["area"])[0] for person in dataset.results[0]]),
        "kept_by_box_score": np.array(reference.oks_nms(persons, rules.OKS_THR)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="of microsoft/human-pose-estimation.pytorch")
    parser.add_argument("dark_checkout", type=Path, help="of ilovepose/DarkPose")
    arguments = parser.parse_args()
    reference = import_reference(arguments.checkout)
    golden = {**geometry(reference), **forward(reference), **end_to_end(reference), **scoring(reference)}
    golden["decoded_dark"] = dark(arguments.dark_checkout, golden["centre"], golden["scale"])
    assert reference.config.TEST.IN_VIS_THRE == rules.KPT_THR
    assert reference.config.TEST.OKS_THRE == rules.OKS_THR
    np.savez_compressed(HERE / "golden.npz", **golden)
    print(f"golden.npz: {(HERE / 'golden.npz').stat().st_size} bytes, OpenCV {reference.cv2.__version__}")


if __name__ == "__main__":
    main()
