"""The rule of imports: packages import packages to their left, without cycles; each foreign library has its owners."""

import graphlib
import subprocess
import sys

import pytest
from support.sources import SOURCES, libraries, own_modules

ORDER = [
    "core",
    "storage",
    "video",
    "models",
    "pose",
    "motion",
    "dataset",
    "report",
    "run",
    "evaluation",
    "training",
    "demo",
    "api",
    "cli",
]
"""A package imports only packages to its left."""

OWNERS = {
    # library: the only modules, or packages, that import it
    "ray": {"run.workers", "training.launch"},
    "av": {"video", "report", "demo.sample"},
    "boto3": {"storage.s3"},
    "botocore": {"storage.s3", "storage.s3_errors", "storage.s3_requests"},
    "pyarrow": {
        *(
            "storage.arrow_files",
            "dataset.tables",
            "dataset.compaction",
            "run.planning.inventory",
            "evaluation.readers",
        ),
        *("training.detector_examples", "training.pose_examples"),
    },
    "dtaidistance": {"motion.comparing.warping"},
    "jinja2": {"evaluation.model_report", "report.comparison_page", "report.pages.template"},
    "markupsafe": {"report.comparison_page", "report.pages.template"},
    "deltalake": {"dataset.compaction.delta"},
    "duckdb": {"dataset.sql", "cli.query"},
    "pandas": {"dataset.tables.readers", "dataset.export", "dataset.performances", "demo.sample_movement"},
    "sleap_io": {"dataset.export.sleap"},
    "ezc3d": {"dataset.export.c3d"},
    "xlsxwriter": {"dataset.export.workbook"},
    "trackers": {"evaluation.other_trackers"},
    "supervision": {"evaluation.other_trackers"},
    "torch": {"models.networks", "models.weights", "pose", "run.workers.segment_worker", "evaluation", "training"},
    "torchvision": {"models.networks", "training"},
    "openvino": {"models.networks"},
    "nncf": {"models.networks.quantization"},
    "safetensors": {"models.weights"},
    "matplotlib": {"evaluation.plots", "training.launch", "report.plots", "api"},
    "scipy": {"evaluation.boxes_found", "evaluation.identity_score", "motion"},
    "cv2": {"pose.flow"},
    "pycocotools": {"evaluation.average_precision"},
    "PIL": {"report", "evaluation", "training", "demo", "dataset.verify"},
    "yaml": {"core.config_file", "report.pages.run_facts", "run.run_folder"},
    "rich": {"run.terminal"},
    "requests": {"storage.http", "models.weights.download", "run.notification"},
    "filelock": {"models.weights.download"},
    "tqdm": {"models.weights.download", "evaluation.progress_bar"},
    "argparse": {"cli", "evaluation.commands", "evaluation.track_command", "training.options"},
}

IMPORTS = {module: own_modules(source) for module, source in SOURCES.items()}


def within(module: str, owner: str) -> bool:
    return f"{module}.".startswith(f"{owner}.")


@pytest.mark.parametrize(
    ("source", "modules", "others"),
    [
        ("", set(), set()),
        ("from posebatch.core.errors import InputError", {"core.errors"}, set()),
        ("import posebatch.core.errors as e", {"core.errors"}, set()),
        ("from posebatch.core import errors", {"core.errors"}, set()),
        ("def f():\n    import ray.exceptions", set(), {"ray"}),
        ("if TYPE_CHECKING:\n    import pandas as pd", set(), {"pandas"}),
    ],
)
def test_imports_of_a_source_are_found_everywhere(source, modules, others):
    assert own_modules(source) == modules
    assert libraries(source) == others


def test_packages_import_only_packages_to_their_left():
    upward = [
        (module, imported)
        for module, imports in IMPORTS.items()
        for imported in imports
        if module and ORDER.index(imported.split(".")[0]) > ORDER.index(module.split(".")[0])
    ]
    assert upward == []


def test_modules_form_no_cycle():
    list(graphlib.TopologicalSorter(IMPORTS).static_order())


@pytest.mark.parametrize("library", OWNERS)
def test_each_library_is_imported_by_its_owners_alone(library):
    users = {module for module, source in SOURCES.items() if library in libraries(source)}
    assert {user for user in users if not any(within(user, owner) for owner in OWNERS[library])} == set()
    assert {owner for owner in OWNERS[library] if not any(within(user, owner) for user in users)} == set()


def test_scheduler_and_planning_know_no_workers():
    known = {imported for module in SOURCES if module.startswith("run.planning.") for imported in IMPORTS[module]}
    assert not [name for name in known | IMPORTS["run.scheduler"] if name.startswith("run.workers.")]


def test_modules_of_the_job_are_short():
    """A module above 300 lines has more than one responsibility. The demo only draws."""
    long = {module for module, source in SOURCES.items() if source.count("\n") > 300}
    assert long <= {"demo.walker", "demo.sample"}


def loaded_by(modules: str, libraries: tuple[str, ...]) -> list[str]:
    script = f"import sys, {modules}\nprint(*[name for name in {libraries} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_commands_and_cpu_tasks_load_neither_torch_nor_ray():
    """Each process pays for its imports: seconds for each of these."""
    modules = "posebatch.cli, posebatch.run.workers.video_tasks"
    assert loaded_by(modules, ("torch", "torchvision", "ray", "pandas", "scipy", "jinja2")) == []


@pytest.mark.slow
def test_workers_load_no_library_that_only_publishing_or_compiling_needs():
    """A worker begins sooner by seconds: publishing loads SciPy when it begins, and nothing loads torch's compiler."""
    modules = "posebatch.run.workers.actors, posebatch.run.workers.segment_worker, posebatch.run.workers.clip_worker"
    assert loaded_by(modules, ("torchvision", "torch._dynamo", "pandas", "scipy")) == ["torchvision"]
