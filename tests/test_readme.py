"""README and docs tell the truth: their examples run, their tables are generated, their files and flags exist.

``python tests/test_readme.py`` writes the generated tables into the pages.
"""

import io
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
import yaml
from support.factories import publish_record, video_bytes

from posebatch.cli.entry import build_parser, main
from posebatch.core.frames import FramePoses, FrameRecord
from posebatch.core.options import Option
from posebatch.core.presets import PRESET_VALUES, PRESETS
from posebatch.core.records import PublishedObject, VideoRecord
from posebatch.core.settings import DETECT_SIZE, options, settings_from
from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.core.tiling import Grid
from posebatch.core.videos import SourceVideo, VideoInfo
from posebatch.dataset.layout import FRAMES, POSES
from posebatch.dataset.tables.parquet import write_parquet
from posebatch.dataset.tables.rows import frames_table, poses_table, provenance
from posebatch.dataset.tables.schemas import FRAMES_SCHEMA, POSES_SCHEMA
from posebatch.dataset.verify import verify
from posebatch.models.weights.listing import ModelRow, list_models
from posebatch.models.weights.published import PUBLISHED_POSES
from posebatch.run.context import RunContext
from posebatch.run.planning.names import EXTENSIONS_BY_DEMUXER
from posebatch.run.tasks import DeriveTask
from posebatch.run.workers.derive import derive_video
from posebatch.storage.open import open_store

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
OPTIONS = ROOT / "docs/options.md"
MODELS = ROOT / "docs/models.md"
ANALYST = ROOT / "docs/analyst.md"
TABLES = ROOT / "docs/tables.md"
CLUSTER = ROOT / "docs/cluster.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "infra/README.md", *sorted((ROOT / "docs").glob("*.md"))]

# --- generated tables --------------------------------------------------------------------------------------------


def options_table() -> str:
    rows = ["| option | default | |", "|---|---|---|"]
    return "\n".join(
        rows + [f"| {_flag(item)} | {_default(item)} | {_escaped(_meaning(item))} |" for item in options()]
    )


def _flag(item: Option) -> str:
    if item.value_type is bool:
        return f"`{item.flag}`"
    return f"`{item.flag} {_escaped(item.metavar or ('...' if item.choices else 'X'))}`"


def _default(item: Option) -> str:
    return "" if item.default in (None, (), False) else f"`{item.default}`"


def _meaning(item: Option) -> str:
    return item.help + (f" ({', '.join(f'`{choice}`' for choice in item.choices)})" if item.choices else "")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def names_table() -> str:
    rows = [
        f"| `{demuxer}` | {' '.join(f'`{extension}`' for extension in extensions.split())} |"
        for demuxer, extensions in EXTENSIONS_BY_DEMUXER.items()
    ]
    return "\n".join(["| FFmpeg's demuxer | names of videos |", "|---|---|", *rows])


def models_table() -> str:
    rows = [
        f"| {row.kind} `{row.name}` | {row.input_size} | {row.parameters / 1e6:.1f} M | {row.accuracy} |"
        for row in list_models()
        if row.weights == "package"
    ]
    return "\n".join(["| network | input | parameters | measured |", "|---|---|---|---|", *rows])


def presets_table() -> str:
    rows = {row.name: row for row in list_models()}
    lines = [
        "| preset | detector | pose network | GFLOPs for a frame + each person | download |",
        "|---|---|---|---|---|",
    ]
    for preset, names in PRESETS.items():
        detector, pose = (rows[name] for name in names)
        values = PRESET_VALUES.get(preset, {})
        grid = Grid.parse(values.get("tiles", "1x1"))
        inputs = grid.rows * grid.columns * (int(values.get("detect_size", DETECT_SIZE)) / int(DETECT_SIZE)) ** 2
        passes = 1 if inputs == 1 else 1 + inputs  # the overview is one more
        cost = f"{passes * detector.gflops:.1f} + {pose.gflops:.1f}"
        megabytes = sum(row.parameters * 4 / 1e6 for row in (detector, pose) if row.weights != "package")
        download = f"{megabytes:.0f} MB" if megabytes else "none"
        lines.append(f"| `{preset}` | {_with_ap(detector)} | {_with_ap(pose)} | {cost} | {download} |")
    return "\n".join(lines)


def _with_ap(row: ModelRow) -> str:
    if row.ap_published is None:
        return f"`{row.name}`: {row.ap_here} here"
    return f"`{row.name}`: {'box AP' if row.kind == 'detector' else 'AP'} {row.ap_published:.3f}"


def paper_table() -> str:
    columns = [(whose, size) for whose in ("paper", "mmpose0", "mmpose") for size in ("256x192", "384x288")]
    lines = [
        f"| AP on COCO val2017 | {' | '.join(f'`{whose}_..._{size}`' for whose, size in columns)} |",
        f"|---{'|---' * len(columns)}|",
    ]
    for backbone in ("mobilenetv2", "resnet50", "resnet101", "resnet152"):
        found = [PUBLISHED_POSES.get(f"{whose}_{backbone}_{size}") for whose, size in columns]
        lines.append(f"| `{backbone}` | {' | '.join(f'{pose.ap:.3f}' if pose else '' for pose in found)} |")
    return "\n".join(lines)


GENERATED: dict[Path, dict[str, Callable[[], str]]] = {
    README: {"presets": presets_table},
    MODELS: {"models": models_table, "paper": paper_table},
    OPTIONS: {"options": options_table, "names": names_table},
}


def with_generated_tables(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    for name, make in GENERATED[page].items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        assert text.count(begin) == text.count(end) == 1, f"{page.name} must hold {begin} and {end} once"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{make()}\n{end}{rest.split(end)[1]}"
    return text


@pytest.mark.parametrize("page", GENERATED, ids=lambda page: page.name)
def test_generated_tables_are_up_to_date(page: Path):
    assert with_generated_tables(page) == page.read_text(encoding="utf-8"), "run: python tests/test_readme.py"


# --- the examples, on a small dataset ----------------------------------------------------------------------------

RATE = 2
"""Processed frames a second of the made-up videos."""

WRIST_SPEED = 50.0
"""Pixels a second of everybody's left wrist."""

TORSO = 50.0
"""Pixels from everybody's shoulders to the hips."""

INFO = VideoInfo("h264", "yuv420p", 640, 480, 0, Fraction(1, 1000), 0, 0.0, float(RATE), 0)


def person(time_s: float, knee_deg: float, x: float = 100.0) -> np.ndarray:
    """Keypoints (17, 3) of somebody at ``x`` whose left knee is bent like that: 0 is straight."""
    joints = dict.fromkeys(KEYPOINT_NAMES, (x, 50.0))
    joints["nose"] = (x - 15, 20.0)  # the knee bends to the right, so the person faces left
    joints["left_ear"] = joints["right_ear"] = (x, 20.0)
    bend = np.radians(knee_deg)
    joints["right_hip"] = joints["left_hip"] = (x, 100.0)
    joints["right_knee"] = joints["left_knee"] = (x, 200.0)
    joints["right_ankle"] = (x, 300.0)
    joints["left_ankle"] = (x + 100 * np.sin(bend), 200 + 100 * np.cos(bend))
    joints["left_wrist"] = (WRIST_SPEED * time_s, 60.0)
    return np.array([(*joints[name], 0.9) for name in KEYPOINT_NAMES], np.float32)


def frame(index: int, persons: Sequence[np.ndarray], status: Any = "ok") -> FramePoses:
    record = FrameRecord(index, 1000 * index // RATE, index == 0, status)
    if not persons:
        return FramePoses.empty(record)
    scores = np.linspace(0.9, 0.5, len(persons)).astype(np.float32)
    hips = np.stack(persons)[:, KEYPOINT_NAMES.index("left_hip"), :2]
    boxes = np.concatenate([hips - np.array([60, 80]), hips + np.array([60, 220])], axis=1).astype(np.float32)
    return FramePoses(record, boxes, scores, scores, np.stack(persons))


def ski_run() -> list[FramePoses]:
    """Two minutes: two people, then one whose knee bends from 0 to 90 degrees all the while, at last nobody."""
    frames = []
    for index in range(120 * RATE):
        time_s = index / RATE
        best = person(time_s, 90 * time_s / 120)
        persons = [best, person(time_s, 10, x=400)] if time_s < 60 else [best] if time_s < 108 else []
        frames.append(frame(index, persons))
    return frames


def gym_lift() -> list[FramePoses]:
    """Half a minute: ten damaged frames, then thirty with one person, then twenty with nobody."""
    damaged = [frame(index, [], "corrupt") for index in range(10)]
    seen = [frame(index, [person(index / RATE, 60)]) for index in range(10, 40)]
    return damaged + seen + [frame(index, []) for index in range(40, 60)]


def publish(root: Path, path: str, frames: list[FramePoses], **record: Any) -> None:
    """Publish a made-up video's tables and commit record, as a run would."""
    store = open_store(str(root))
    video = SourceVideo(f"/archive/{path}", path, "1-1", 1, 0.0)
    objects = []
    for artifact, make, schema in ((POSES, poses_table, POSES_SCHEMA), (FRAMES, frames_table, FRAMES_SCHEMA)):
        if not frames:
            continue
        sink = io.BytesIO()
        metadata = provenance(video, INFO, {"stride": 1, "fps": None}, {}, "0" * 16)
        rows = write_parquet(sink, schema, [make(frames, video.uri, INFO.time_base)], metadata)
        key = artifact.key(path)
        objects.append({"kind": artifact.kind, "key": key, "rows": rows, "size_bytes": store.put(key, sink).size_bytes})
    publish_record(
        store,
        path,
        VideoRecord(
            video.uri,
            video.etag,
            video.size_bytes,
            video.last_modified,
            settings_fingerprint="0" * 16,
            run_id="run",
            posebatch_version="0",
            info=INFO if frames else None,
            frames_processed=len(frames),
            persons=sum(len(one) for one in frames),
            objects=tuple(PublishedObject(**one, fingerprint="0" * 16) for one in objects),
            **record,
        ),
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the dataset ``out`` which the README's examples read."""
    folder = tmp_path_factory.mktemp("readme")
    publish(folder / "out", "ski/run.mp4", ski_run(), status="ok")
    publish(folder / "out", "gym/lift.mp4", gym_lift(), status="partial", error_kind="damaged", error="10 frames")
    publish(folder / "out", "ski/broken.mp4", [], status="failed", error_kind="not_a_video", error="no container")
    context = RunContext("run", settings_from({}), str(folder / "out"), "d", "p", only_derives=True)
    for path in ("ski/run.mp4", "gym/lift.mp4"):
        derive_video(DeriveTask(SourceVideo(f"/archive/{path}", path, "1-1", 1, 0.0)), context)
    return folder


def blocks(language: str, page: Path = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def answers(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The variables that the Python of the page on tables leaves behind."""
    monkeypatch.chdir(dataset)
    names: dict[str, Any] = {}
    for block in blocks("python", TABLES):
        exec(block, names)
    return names


@pytest.fixture
def query_results(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> list[pd.DataFrame]:
    monkeypatch.chdir(dataset)
    return [duckdb.sql(block).df() for block in blocks("sql", TABLES)]


def test_the_dataset_of_these_tests_is_one_that_verify_accepts(dataset: Path):
    verdict = verify(open_store(str(dataset / "out")))
    assert verdict.problems == ()
    assert (verdict.videos, verdict.failed, verdict.frames) == (3, 1, 300)


def test_knee_example(answers: dict[str, Any]):
    knee = answers["knee"].loc["/archive/ski/run.mp4"]
    assert len(knee) == 108 * RATE
    np.testing.assert_allclose(knee, 90 * knee.index / 120, atol=0.1)


def test_nobody_example(answers: dict[str, Any]):
    assert answers["nobody"].to_dict() == {"/archive/gym/lift.mp4": 0.4, "/archive/ski/run.mp4": 0.1}


def test_failures_example(answers: dict[str, Any]):
    found = answers["failures"].set_index("video")
    assert found.loc["/archive/ski/broken.mp4", ["status", "error_kind", "error"]].tolist() == [
        "failed",
        "not_a_video",
        "no container",
    ]
    assert found.index.tolist() == ["/archive/gym/lift.mp4", "/archive/ski/broken.mp4"]


def test_wrist_query(query_results: list[pd.DataFrame]):
    speeds = query_results[0]
    assert set(speeds["video"]) == {"/archive/gym/lift.mp4", "/archive/ski/run.mp4"}
    assert len(speeds) == 108 * RATE + 30 - 2, "the first frame of each video has none before it"
    np.testing.assert_allclose(speeds["px_per_s"], WRIST_SPEED, rtol=1e-3)
    np.testing.assert_allclose(speeds["torso_per_s"], WRIST_SPEED / TORSO, rtol=5e-3)


def test_wrist_query_leaves_out_steps_from_and_to_an_unsure_joint():
    torso = pd.DataFrame({"video": ["a"], "track_id": 0, "is_main": True, "torso_px": 50.0})
    scores = [0.9, 0.9, 0.1, 0.9, 0.9, np.nan, 0.9, 0.9]
    joint = [0.0, 1.0, 500.0, 3.0, 4.0, np.nan, 6.0, 7.0]
    motion = pd.DataFrame({"video": "a", "track_id": 0, "time_s": np.arange(8) / 10, "left_wrist_score": scores})
    motion = motion.assign(left_wrist_x=joint, left_wrist_y=0.0)
    query = blocks("sql", TABLES)[0]
    with duckdb.connect() as connection:
        connection.register("motion", motion)
        connection.register("tracks", torso)
        for table in ("motion", "tracks"):
            query = query.replace(f"'out/{table}/**/*.parquet'", table)
        found = connection.sql(query).df()
    assert found["time_s"].tolist() == [0.1, 0.4, 0.7]
    np.testing.assert_allclose(found["px_per_s"], 10)


def test_persons_per_minute_query(query_results: list[pd.DataFrame]):
    rows = query_results[1][["video", "minute", "mean_persons", "most_persons"]].values.tolist()
    assert rows == [
        ["/archive/gym/lift.mp4", 0, 0.6, 1],
        ["/archive/ski/run.mp4", 0, 2.0, 2],
        ["/archive/ski/run.mp4", 1, 0.8, 1],
    ]


def test_followed_query(query_results: list[pd.DataFrame]):
    rows = query_results[2][["video", "found", "followed"]].values.tolist()
    assert rows == [["/archive/gym/lift.mp4", 30, 30], ["/archive/ski/run.mp4", 336, 336]]


# --- what the README and the files beside it name ----------------------------------------------------------------


COMMAND = re.compile(
    r"(?:^posebatch|python (?:/app/)?(?P<script>jobs/extract_poses\.py)) (?P<arguments>.*?)(?: 2>&1)?(?: \||$)",
    re.MULTILINE,
)


def commands_in(text: str) -> list[list[str]]:
    """The arguments of the commands in a text, each of which has lines of its own."""
    return [
        ["run"] * bool(found["script"]) + shlex.split(found["arguments"], comments=True)
        for found in COMMAND.finditer(re.sub(r"\\\n\s*", " ", text))
    ]


def told_commands() -> dict[str, list[list[str]]]:
    """The arguments of posebatch wherever somebody is told to run it."""
    texts = {
        "README.md": "\n".join(blocks("bash")),
        "cluster.md": "\n".join(blocks("bash", CLUSTER)),
        "models.md": "\n".join(blocks("bash", MODELS)),
        "rayjob.yaml": yaml.safe_load((ROOT / "infra/gpu/rayjob.yaml").read_text())["spec"]["entrypoint"],
        "cluster.yaml": (ROOT / "infra/gpu/cluster.yaml").read_text().replace("\n# ", "\n"),
    }
    return {place: commands_in(text) for place, text in texts.items()}


def test_pages_tell_one_way_to_start_posebatch():
    """The README activates the environment, and every command after that is a bare ``posebatch``."""
    assert [page.name for page in PAGES if ".venv/bin/posebatch" in page.read_text(encoding="utf-8")] == []
    assert any(block.startswith("source .venv/bin/activate") for block in blocks("bash"))


def test_commands_parse():
    told = told_commands()
    assert {place: len(commands) for place, commands in told.items()} == {
        "README.md": 3,
        "cluster.md": 4,
        "models.md": 3,
        "rayjob.yaml": 1,
        "cluster.yaml": 1,
    }
    for arguments in (one for commands in told.values() for one in commands):
        assert callable(build_parser().parse_args(arguments).command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_pages_parse(page: Path):
    """Also those inside a sentence or a table."""
    inside = re.findall(r"`(posebatch [^`\n]* [^`\n]*)`", page.read_text(encoding="utf-8"))
    for arguments in commands_in("\n".join([*inside, *blocks("bash", page)])):
        build_parser().parse_args(arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_pages_lead_somewhere(page: Path):
    targets = [
        target for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")) if "://" not in target
    ]
    assert [target for target in targets if not page.parent.joinpath(target).exists()] == []


def test_contributing_names_files_that_are_there():
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:posebatch|tests|jobs)/[\w/.]+)`", table)
    assert len(named) > 8
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_docs_index_names_every_page():
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert {name for name in pages if f"]({name})" not in index} == set()


def test_tests_that_stand_for_a_promise_are_there():
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    named = set(re.findall(r"`(?:faults/)?(test_\w+)(?:\.py)?`", page))
    missing = [name for name in named if f"def {name}(" not in sources and not [*(ROOT / "tests").rglob(f"{name}.py")]]
    assert len(named) > 50
    assert missing == []


def test_readme_stays_readable():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120


def test_readme_examples_run(dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(dataset)
    (dataset / "clip.mp4").write_bytes(video_bytes(frames=3, size=(160, 120)))
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(block, names)
    assert capsys.readouterr().out.splitlines() == [f"{frame} (0, 17, 3)" for frame in range(3)]
    assert len(names["knee"].loc["/archive/ski/run.mp4"].dropna()) == 108 * RATE


def test_each_line_of_the_analyst_runs(dataset: Path, monkeypatch: pytest.MonkeyPatch):
    """All but `run`, whose result is the made-up dataset."""
    monkeypatch.chdir(dataset)
    told = COMMAND.finditer(blocks("bash", ANALYST)[0])
    commands = [shlex.split(found["arguments"], comments=True) for found in told]
    assert [command[0] for command in commands] == ["run", "plot", "compare", "export", "query"]
    build_parser().parse_args(commands[0])
    for command in commands[1:]:
        assert main(command) == 0, command
    written = {str(path.relative_to(dataset)) for path in dataset.rglob("*") if path.is_file()}
    assert {"knee.png", "comparison/comparison.html", "comparison/comparison.parquet"} <= written
    assert any(name.startswith("sheets/") and name.endswith(".xlsx") for name in written)
    names: dict[str, Any] = {}
    for block in blocks("python", ANALYST):
        exec(block, names)
    assert names["deepest"].time_s.tolist() == [107.5]
    assert names["figure"].axes
    np.testing.assert_allclose(names["range_of_motion"], 0.96 * names["deepest"].left_knee_deg, rtol=0.01)
    assert names["time_bent"].tolist() == [0]
    np.testing.assert_allclose(names["time_known"], 107.5)


def test_recipes_of_the_analyst_pass_clips_of_unknown_angles(monkeypatch: pytest.MonkeyPatch):
    """A clip that shows no leg, one of a person who bends for 0.7 of 2.4 s, and one of a limp of 10 degrees."""
    times = np.arange(241) / 20
    gait = 30 - 30 * np.cos(2 * np.pi * times)
    clips = {
        "no_leg": pd.DataFrame({"left_knee_deg": np.nan, "right_knee_deg": np.nan, "trunk_deg": np.nan}, index=times),
        "limp": pd.DataFrame({"left_knee_deg": gait, "right_knee_deg": gait * 5 / 6, "trunk_deg": 90.0}, index=times),
        "bends": pd.DataFrame({"left_knee_deg": 5.0, "right_knee_deg": 5.0, "trunk_deg": 90.0}, index=times[:49]),
    }
    clips["bends"].iloc[10:24, 2] = 30
    clips["bends"].iloc[30:32, 2] = np.nan
    named = [clip.assign(video=name, track_id=0, facing="right") for name, clip in clips.items()]
    motion = pd.concat(named).reset_index(names="time_s")
    monkeypatch.setattr("posebatch.read_tracks", lambda *_, **__: motion.drop_duplicates("video").assign(is_main=True))
    monkeypatch.setattr("posebatch.read_motion", lambda *_, columns, **__: motion[columns])
    monkeypatch.setattr("posebatch.plot", lambda *_, **__: None)
    names: dict[str, Any] = {}
    for block in blocks("python", ANALYST):
        exec(block, names)
    assert names["deepest"].video.tolist() == ["bends", "limp"]
    np.testing.assert_allclose(names["time_bent"][["no_leg", "limp", "bends"]], [0, 0, 0.7])
    np.testing.assert_allclose(names["time_known"][["no_leg", "limp", "bends"]], [0, 12, 2.3])
    difference, uncertainty, left, right = names["sides"]["limp"]
    np.testing.assert_allclose((difference, uncertainty, left, right), (10, 0, 12, 12), atol=1e-9)


def test_infra_agrees_with_itself():
    rayjob = yaml.safe_load((ROOT / "infra/gpu/rayjob.yaml").read_text())
    cluster = rayjob["spec"]["rayClusterSpec"]
    dockerfile = (ROOT / "infra/Dockerfile").read_text()
    assert f"ARG RAY_VERSION={cluster['rayVersion']}\n" in dockerfile
    assert "COPY jobs jobs" in dockerfile
    assert "WORKDIR /app\n" in dockerfile
    nightly = [*yaml.safe_load_all((ROOT / "infra/gpu/nightly.yaml").read_text())]
    assert [one["kind"] for one in nightly] == ["CronJob", "ServiceAccount", "Role", "RoleBinding"]
    script = nightly[0]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"][2]
    assert f"rayjob {rayjob['metadata']['name']} " in script


def test_no_example_leaves_ray_open():
    places = [*PAGES, *(path for path in (ROOT / "infra").rglob("*.*") if path.is_file())]
    for place in places:
        assert not re.search(r"AUTH_MODE\W+disabled", place.read_text(encoding="utf-8")), place
    (shell,) = (block for block in blocks("bash", CLUSTER) if "ray start" in block)
    assert shell.index("get-auth-token --generate") < shell.index("RAY_AUTH_MODE=token") < shell.index("ray start")
    for rayjob in (yaml.safe_load(path.read_text()) for path in (ROOT / "infra").glob("*/rayjob.yaml")):
        assert rayjob["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_every_node_of_the_cluster_asks_for_the_token_and_has_it():
    text = (ROOT / "infra/gpu/cluster.yaml").read_text()
    cluster = yaml.safe_load(text)
    starts = [one for kind in ("head", "worker") for one in cluster[f"{kind}_start_ray_commands"] if "ray start" in one]
    assert len(starts) == 2
    assert all(one.startswith("RAY_AUTH_MODE=token ") for one in starts)
    assert re.search(r"useradd .* (ray)$", (ROOT / "infra/Dockerfile").read_text(), re.MULTILINE)
    assert cluster["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    assert text.index("get-auth-token --generate") < text.index("export RAY_AUTH_MODE=token") < text.index("ray up")


def test_policy_allows_what_the_job_does_and_no_more():
    policy = json.loads((ROOT / "infra/iam-policy.json").read_text())
    actions = {action for one in policy["Statement"] for action in np.atleast_1d(one["Action"])}
    assert actions == {
        "s3:ListBucket",
        "s3:GetObject",
        "s3:PutObject",
        "s3:DeleteObject",
        "s3:AbortMultipartUpload",
    }
    listing = next(one for one in policy["Statement"] if one["Action"] == "s3:ListBucket")
    assert "Condition" not in listing  # it would turn "no such object" into "access denied"


def test_licence_is_the_one_that_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "LICENSE").read_text()
    assert project["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


if __name__ == "__main__":
    for generated in GENERATED:
        generated.write_text(with_generated_tables(generated), encoding="utf-8")
