"""The architecture, proven on the syntax trees: one ordered list of modules, and who may import which library."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import posebatch

PACKAGE = Path(posebatch.__file__).parent

LAYERS = {
    # each module may import those above it; why it stands where it stands
    "version": "one constant",
    "redaction": "what a message must not say",
    "errors": "everybody raises them",
    "watch": "over this process; knows nothing of what it does",
    "digests": "arithmetic",
    "skeleton": "numbers of COCO",
    "colour": "what a decoder's planes mean",
    "types": "what flows between stages",
    "scoring": "arithmetic",
    "geometry": "arithmetic",
    "propagation": "arithmetic: from a frame's persons to the next one's boxes",
    "heatmaps": "arithmetic",
    "decoding": "names for ways through the arithmetic",
    "tiling": "arithmetic: frames in tiles, and their boxes together again",
    "settings": "what a run can be told",
    "storage": "bytes by key",
    "channel": "items between threads",
    "video.limits": "what one video may be",
    "video.container": "opens what FFmpeg can read",
    "video.packets": "the packets of a segment",
    "video.sampling": "arithmetic",
    "video.presentation": "packets to numbered frames",
    "video.bitstream": "bytes to what other frames need",
    "video.foresight": "the packets' times to numbered frames",
    "video.excerpt": "only what is wanted, decoded",
    "video.hardware": "whether there is NVDEC",
    "video.attempts": "first this way, then that",
    "video.rgb": "a frame as it is displayed",
    "video.packing": "frames to what a batch holds",
    "video.cutting": "a container's index to segments",
    "video.decoder": "a segment to batches",
    "video.rates": "how fast that is",
    "video": "what the rest uses of it",
    "planes": "planes to what networks look at",
    "pixels": "frames to what networks look at",
    "tables": "rows to bytes; reads through storage",
    "checks": "what a table must hold",
    "inputs": "names to videos, on storage; their results are read as the tables are",
    "clashes": "names that a disk takes for one",
    "models": "the package itself holds nothing",
    "models.zoo": "what others publish, as data",
    "models.download": "brings weight files here, without torch",
    "models.registry": "records of weights, without torch",
    "models.input_size": "who may be told one, without torch",
    "models.layouts": "names of tensors, without torch",
    "models.listing": "the table of networks, without torch",
    "models.pose_resnet": "a network",
    "models.ssdlite": "a network",
    "models.weights": "loads weights into the networks",
    "models.quantized": "files of 8-bit networks, without torch",
    "models.inference": "folding and constant batches",
    "models.engines": "a network in batches of one shape, by torch or OpenVINO",
    "models.quantize": "8-bit networks from full ones",
    "models.detector": "frames to boxes",
    "models.tiled": "the same, tile by tile",
    "models.pose": "crops to heatmaps",
    "models.peaks": "heatmaps to joints where they are",
    "models.convert": "weights of others into files of ours",
    "models.benchmark": "how fast the networks are here",
    "estimator": "frames to poses; needs no Ray and no storage",
    "plan": "what to do with a video, pure",
    "ledger": "what records say, proven by their listing, pure",
    "commits": "what is staged and published",
    "lease": "one run at a time, by conditional puts",
    "worker": "the story of a segment",
    "render": "skeletons on frames, GIF",
    "finalize": "the story of a video's end",
    "evaluation": "the package itself holds nothing",
    "evaluation.dataset": "labelled images",
    "evaluation.readers": "files to labelled images",
    "evaluation.average_precision": "COCO's figures",
    "evaluation.joints": "figures of joints",
    "evaluation.agreement": "figures of one table against another",
    "evaluation.detections": "runs and measures detectors",
    "evaluation.finding": "figures of boxes by size",
    "evaluation.poses": "runs and measures pose networks, through the estimator",
    "evaluation.calibration": "what networks get to see of labelled images, and 8-bit networks from it",
    "evaluation.report": "figures to text",
    "evaluation.plots": "figures to a picture",
    "evaluation.pictures": "persons to look at, drawn by render",
    "training": "the package itself holds nothing",
    "training.pose_examples": "files to labelled persons",
    "training.augment": "persons to crops, at random",
    "training.device_crops": "the same where the network is",
    "training.detector_examples": "files to pictures with marked persons",
    "training.mosaic": "pictures to canvases, at random",
    "training.shuffle": "arithmetic",
    "training.loop": "steps, checkpoints; knows no task",
    "training.pose_task": "what a pose network learns",
    "training.detector_task": "what a detector learns",
    "training.narrow": "a start from a wider network",
    "training.widen": "a start from a plainer network",
    "training.recipes": "a training from its files to its result",
    "training.plots": "history to a picture",
    "training.launch": "here or on Ray Train",
    "training.embedded": "the larger embedded network's training in stages",
    "training.background": "a training beside other work",
    "training.command_line": "what both trainings are told",
    "tasks": "the CPU tasks, finalize among them",
    "progress": "says how a run is going",
    "standings": "how each video stands, by the ledger or by reading",
    "planner": "what to do with each video, ahead of the run",
    "runner": "the policy of a run; knows no Ray",
    "runs": "what a run leaves about itself",
    "verify": "proves a dataset",
    "upkeep": "takes away what nobody needs",
    "actors": "what the processes do when called",
    "cluster": "the mechanism under the runner",
    "job": "a run from its inputs to its exit code",
    "dryrun": "the same without doing it",
    "scene": "what a drawn film shows",
    "walker": "a person of our own drawing",
    "sample": "the film with its truth",
    "demo": "the job on the sample",
    "benchmark": "the package itself holds nothing",
    "benchmark.measured": "figures and what follows from them",
    "benchmark.child": "a process for each measurement",
    "benchmark.timing": "something over and over",
    "benchmark.scenes": "videos to measure with",
    "benchmark.networks": "networks to measure with",
    "benchmark.gemm": "what the machine can do",
    "benchmark.stages": "each stage of the job alone",
    "benchmark.end_to_end": "the job, in one process and on Ray",
    "benchmark.plain": "the same work frame by frame",
    "benchmark.ray_data": "the same work by Ray Data",
    "benchmark.outside": "the same work by programs of others, which need not have ours",
    "benchmark.others": "a process of another environment for each of them",
    "benchmark.traffic": "bytes through a network and through the memory",
    "benchmark.ways": "a network in every way to run it",
    "benchmark.scaling": "more workers, and workers that do nothing",
    "benchmark.driver": "a driver whose workers answer at once",
    "benchmark.planning": "a night over an archive out of nothing",
    "benchmark.publication": "tiny videos, one after another",
    "benchmark.report": "figures to text and JSON",
    "benchmark.plots": "figures to a picture",
    "cli": "the commands",
    "": "re-exports what analysts read with",
}

OWNERS = {
    # library: the only modules that may import it
    "ray": {"actors", "cluster", "training.launch", "benchmark.ray_data"},
    "av": {"render", "sample", "benchmark.scenes", "benchmark.stages", "benchmark.plain", "benchmark.outside"}
    | {
        f"video.{name}"
        for name in ("container", "packets", "presentation", "foresight", "excerpt", "hardware", "attempts")
    }
    | {f"video.{name}" for name in ("rgb", "packing", "cutting", "decoder")},
    "boto3": {"storage"},
    "botocore": {"storage"},
    "urllib3": {"storage"},
    "mypy_boto3_s3": {"storage"},
    "pyarrow": {"tables", "checks", "evaluation.readers", "training.pose_examples", "training.detector_examples"}
    | {"benchmark.ray_data"},
    "pycocotools": {"evaluation.average_precision"},
    "scipy": {"evaluation.finding"},
    "matplotlib": {"evaluation.plots", "training.plots", "benchmark.plots"},
    "pandas": {"tables"},
    "yaml": {"settings", "runs"},
    "argparse": {"cli", "training.command_line"},
    "openvino": {"models.engines", "models.quantize", "models.peaks"},
    "nncf": {"models.quantize"},
    "torch": {"models.pose_resnet", "models.ssdlite", "models.weights", "models.inference", "models.detector"}
    | {"models.pose", "models.benchmark", "models.engines", "models.quantize", "models.peaks"}
    | {"planes", "pixels", "estimator", "worker", "evaluation.detections", "evaluation.calibration"}
    | {
        f"training.{name}"
        for name in ("loop", "device_crops", "pose_task", "detector_task", "narrow", "widen", "recipes", "launch")
    }
    | {f"benchmark.{name}" for name in ("networks", "gemm", "stages", "end_to_end", "plain", "ray_data", "report")}
    | {f"benchmark.{name}" for name in ("timing", "traffic", "ways", "outside")},
    "torchvision": {"models.pose_resnet", "models.ssdlite", "models.weights", "models.inference", "models.detector"}
    | {"models.pose", "training.detector_task", "training.widen", "training.recipes", "benchmark.outside"},
    "ultralytics": {"benchmark.outside"},
    "mediapipe": {"benchmark.outside"},
    "cv2": {"benchmark.outside"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


@functools.cache
def imported(source: str) -> set[str]:
    """Full names of everything imported anywhere in a source, inside functions and for type checking too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide what is imported"
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def own_modules(source: str) -> set[str]:
    """The modules of ours among the imports; `from posebatch import x` counts as x, and as the package."""
    ours = {name for name in imported(source) if name.split(".")[0] == "posebatch"}
    below = {name.partition(".")[2] for name in ours}
    return {name for name in below if name in SOURCES}


def libraries(source: str) -> set[str]:
    return {name.split(".")[0] for name in imported(source)} - {"posebatch"}


@pytest.mark.parametrize(
    ("source", "modules", "others"),
    [
        ("", set(), set()),
        ("import posebatch", {""}, set()),
        ("from posebatch.errors import InputError", {"errors"}, set()),
        ("from posebatch import errors", {"", "errors"}, set()),
        ("import posebatch.models.weights as w", {"models.weights"}, set()),
        ("from posebatch.models import weights", {"models", "models.weights"}, set()),
        ("def f():\n    import ray.exceptions", set(), {"ray"}),
        ("if TYPE_CHECKING:\n    import pandas as pd", set(), {"pandas"}),
        ("from av.video.frame import VideoFrame", set(), {"av"}),
    ],
)
def test_the_walk_sees_imports(source, modules, others):
    assert own_modules(source) == modules
    assert libraries(source) == others


def test_every_module_has_its_place():
    assert set(LAYERS) == set(SOURCES), "a new module must be put into the list, with the reason for its place"


@pytest.mark.parametrize("module", LAYERS)
def test_a_module_imports_only_modules_above_it(module: str):
    order = list(LAYERS)
    allowed = set(order[: order.index(module)])
    assert own_modules(SOURCES[module]) <= allowed


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_is_known_to_its_owners_alone(library: str):
    users = {module for module, source in SOURCES.items() if library in libraries(source)}
    assert users <= OWNERS[library]


@pytest.mark.parametrize("library", ["ray", "av", "boto3", "pyarrow", "torch"])
def test_the_owners_are_real(library: str):
    """Otherwise the rule above would hold of nothing."""
    assert any(library in libraries(SOURCES[owner]) for owner in OWNERS[library])


def test_commands_and_cpu_tasks_do_not_load_torch_or_ray():
    """Each process pays for what it imports: seconds for each of these."""
    script = (
        "import sys, posebatch.cli, posebatch.tasks\n"
        "print(*[name for name in ('torch', 'torchvision', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
