"""Output and exit codes of the commands, without Ray. End-to-end tests cover what `run` does."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from support.tiny_video import write_tiny_video

from posebatch.cli.entry import build_parser, main
from posebatch.cli.groups import GROUPS, Group
from posebatch.cli.run import _settings
from posebatch.core.settings import options, settings_from
from posebatch.core.version import __version__
from posebatch.models.weights.listing import list_models
from posebatch.run.dry_run import time_by_probe
from posebatch.run.preparation import prepare
from posebatch.run.workers import speed_probe
from posebatch.storage.local import LocalStore


def tree(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(root.rglob("*"))}


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a video, an empty folder, and a file where an output cannot be; the working directory."""
    write_tiny_video(tmp_path / "in" / "a.mp4")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/readme.txt").write_text("no video")
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "settings.yaml").write_text("stirde: 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path


USAGE = [
    pytest.param([], ["the following arguments are required: COMMAND; see posebatch --help"], id="nothing"),
    pytest.param(["rum"], ["invalid choice: 'rum'"], id="unknown command"),
    pytest.param(["run"], ["the following arguments are required: --output"], id="no output"),
    pytest.param(["run", "--output", "out"], ["no input: name a video, a folder"], id="no input"),
    pytest.param(
        ["run", "in", "--output", "out", "--strid", "2"],
        ["unrecognized arguments: --strid 2; did you mean '--stride'? see posebatch run --help"],
        id="nearest flag",
    ),
    pytest.param(
        ["plan", "in", "--output", "out", "--stirde=2"], ["--stirde=2; did you mean '--stride'?"], id="nearest with ="
    ),
    pytest.param(["run", "in", "--outptu", "out"], ["required: --output"], id="output misspelt"),
    pytest.param(["verify", "--output", "out", "--stride", "2"], ["unrecognized arguments: --stride"], id="elsewhere"),
    pytest.param(["verify", "--output", "out", "--deap"], ["--deap; did you mean '--deep'?"], id="verify, nearest"),
    pytest.param(["derive"], ["required: --output; see posebatch derive --help"], id="derive without an output"),
    pytest.param(
        ["derive", "--output", "out", "--cut-hz", "2"],
        ["--cut-hz 2; did you mean '--cutoff-hz'? see posebatch derive --help"],
        id="derive, nearest",
    ),
    pytest.param(
        ["derive", "--output", "out", "--stride", "2"], ["unrecognized arguments: --stride"], id="no networks"
    ),
    pytest.param(["derive", "--output", "empty"], ["empty: no commit record below videos/: nothing"], id="derive none"),
    pytest.param(
        ["derive", "--output", "out", "--cutoff-hz", "0"], ["cutoff_hz must be at least 0.1, got 0"], id="derive, limit"
    ),
    pytest.param(["gc"], ["required: --output; see posebatch gc --help"], id="gc without an output"),
    pytest.param(["gc", "--output", "out", "--delet"], ["--delet; did you mean '--delete'?"], id="gc, no abbreviation"),
    pytest.param(
        ["gc", "--output", "out", "--older-than-days", "a week"], ["invalid float value: 'a week'"], id="gc, no number"
    ),
    pytest.param(
        ["gc", "--output", "out", "--older-than-days", "0.01"],
        ["at least 0.042 (an hour), got 0.01"],
        id="gc, too short",
    ),
    pytest.param(["models", "x"], ["invalid choice: 'x'"], id="models knows two actions"),
    pytest.param(["models", "fetch"], ["required: NAME"], id="fetch without a name"),
    pytest.param(["models", "fetch", "resnet5"], ["called 'resnet5'; did you mean resnet50"], id="fetch unknown"),
    pytest.param(
        ["models", "convert", "a.pth", "b.pth"],
        ["b.pth: weight files of ours end in"],
        id="convert to another suffix",
        marks=pytest.mark.slow,
    ),
    pytest.param(
        ["models", "convert", "a.pth", "b.safetensors", "--input-size", "big"],
        ["--input-size: invalid", "'big'"],
        id="convert with a wrong size",
    ),
    pytest.param(
        ["run", "in", "--output", "out", "--strip", "2"],
        ["--strip 2; did you mean '--stride'? see posebatch run --help"],
        id="no abbreviation",
    ),
    pytest.param(
        ["run", "in", "--output", "out", "--xyzzy"], ["arguments: --xyzzy; see posebatch run --help"], id="no guess"
    ),
    pytest.param(["run", "in", "--output", "out", "--probe-speed"], ["arguments: --probe-speed"], id="flag of plan"),
    pytest.param(
        ["run", "in", "--output", "out", "--device", "cuda"],
        ["--device cuda: torch sees no CUDA device on this machine; use --device auto or cpu"],
        id="no GPU",
        marks=pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU"),
    ),
    pytest.param(["run", "in", "--output", "out", "--stride", "0"], ["stride must be at least 1, got 0"], id="limit"),
    pytest.param(
        ["run", "in", "--output", "out", "--config", "settings.yaml"],
        ["--config settings.yaml: unknown setting 'stirde'; did you mean 'stride'?"],
        id="settings file",
    ),
    pytest.param(
        ["run", "in", "--output", "out", "--config", "none.yaml"], ["--config none.yaml"], id="no settings file"
    ),
    pytest.param(["run", "empty", "--output", "out"], ["no video in empty", ".mp4"], id="empty folder"),
    pytest.param(["run", "notes", "--output", "out"], ["no video in notes\n", "passed over: 1 file"], id="other files"),
    pytest.param(["run", "nowhere", "--output", "out"], ["nowhere: no such file or folder"], id="missing input"),
    pytest.param(["run", "gs://b/x", "--output", "out"], ["gs:// is not supported"], id="other store"),
    pytest.param(["run", "--inputs-from", "none.txt", "--output", "out"], ["--inputs-from none.txt"], id="no list"),
    pytest.param(["run", "in", "--output", "in/out"], ["in/out lies inside the input in"], id="output in input"),
    pytest.param(["run", "in", "--output", "file/out"], ["/file/out cannot be written"], id="output below a file"),
    pytest.param(["run", "in", "--output", "file"], ["/file cannot be written"], id="output is a file"),
    pytest.param(
        ["run", "in", "--output", "out", "--pose", "none.safetensors"],
        ["none.safetensors: no such weight file"],
        id="wrong path of weights",
    ),
    pytest.param(
        ["run", "in", "--output", "out", "--detector", "in/a.mp4"], ["in/a.mp4: not a readable"], id="no weights"
    ),
    pytest.param(
        ["run", "in", "--output", "out", "--detector", "ssdlite_mobilenet_v2"],
        ["no detector is called 'ssdlite_mobilenet_v2'; did you mean ssdlite_mobilenet_v2_320"],
        id="unknown detector",
    ),
    pytest.param(
        ["run", "in", "--output", "out", "--preset", "embeded"],
        ["preset must be one of embedded, fast, balanced, accurate, far, got 'embeded'; did you mean 'embedded'?"],
        id="unknown preset",
    ),
]


@pytest.mark.parametrize(("arguments", "parts"), USAGE)
def test_commands_refuse_wrong_arguments(archive: Path, capsys: pytest.CaptureFixture[str], arguments, parts):
    before = tree(archive)
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("posebatch: ")
    assert "Traceback" not in printed.err
    for part in parts:
        assert part in printed.err
    assert tree(archive) == before, "nothing is written"


@pytest.mark.parametrize("arguments", [case.values[0] for case in USAGE if case.values[0][:1] == ["run"]])
def test_plan_refuses_what_run_refuses(archive: Path, capsys: pytest.CaptureFixture[str], arguments):
    if "--probe-speed" in arguments:
        return  # a flag of plan alone
    cannot_write = any(argument.startswith("file") for argument in arguments)
    assert main(["plan", *arguments[1:]]) == (0 if cannot_write else 2)  # plan writes nothing, so it does not fail


def test_an_error_is_a_json_line_if_the_log_is(archive: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["run", "in/missing.mp4", "--output", "out", "--log-format", "json"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["event"], said["level"], said["exit_code"]) == ("error", "error", 2)
    assert "in/missing.mp4: no such file" in said["message"]


def test_run_with_on_existing_error_names_the_record(archive: Path, capsys: pytest.CaptureFixture[str]):
    from support.factories import publish_record  # noqa: PLC0415

    from posebatch.core.records import VideoRecord  # noqa: PLC0415

    publish_record(LocalStore("out"), "a.mp4", VideoRecord("/x/a.mp4", "e", 1, 1.0, "ok", "f", "r", "0"))
    before = tree(archive)
    assert main(["run", "in", "--output", "out", "--on-existing", "error"]) == 2
    assert "out/videos/a.mp4.parquet exists already" in capsys.readouterr().err
    assert tree(archive) == before


def test_version_is_printed(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"posebatch {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["plan", "-h"], ["verify", "-h"], ["gc", "-h"], ["demo", "-h"]]
)
def test_help_lists_usage_and_flags(capsys: pytest.CaptureFixture[str], arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: posebatch")
    if arguments[0] in ("run", "plan"):
        assert all(item.flag in printed for item in options())
        assert len(printed.split("\n\n")[0].splitlines()) == 1, "a usage of one line"
        for group in GROUPS:
            assert f"\n{group.title}:\n  example: posebatch {arguments[0]} " in printed


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.title)
def test_examples_of_the_help_are_valid(group: Group):
    chosen = build_parser().parse_args(["run", *shlex.split(group.example)])
    assert _settings(chosen)
    assert chosen.inputs


def test_models_command_lists_networks(capsys: pytest.CaptureFixture[str]):
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    rows = list_models()
    assert rows
    listed = {line.split()[0]: line for line in printed.splitlines() if re.match(r"\w+ .*\d+\.\d M ", line)}
    assert [*listed] == [row.name for row in rows]
    for row in rows:
        for fact in (row.input_size, f"{row.gflops:.1f}", f"{row.parameters / 1e6:.1f} M", row.ap_here, row.weights):
            assert fact in listed[row.name]
        assert row.licence in printed


@pytest.mark.parametrize("on_existing", ["skip", "overwrite"])
def test_plan_command_writes_nothing(archive: Path, capsys: pytest.CaptureFixture[str], on_existing: str):
    write_tiny_video(archive / "in/dt=1/b.mov", frames=30)
    (archive / "in/broken.mp4").write_bytes(b"no video")
    before = tree(archive)
    assert main(["plan", "in", "--output", "out", "--on-existing", on_existing, "--segment-seconds", "1"]) == 0
    printed = capsys.readouterr().out
    assert tree(archive) == before
    lines = printed.splitlines()
    assert re.fullmatch(r"compute +\S+/in/a\.mp4  \(new\)  mpeg4 64x48, 1 s, 1 segment", lines[0])
    assert re.search(r"in/broken\.mp4", lines[1])
    assert re.search(r"will fail: .*/in/broken\.mp4: a text, not a video", lines[2])
    assert re.search(r"in/dt=1/b\.mov  \(new\)  mpeg4 64x48, 3 s, [23] segments", lines[3])
    assert "3 compute" in printed
    assert "36 frames" in printed
    assert "4 s of video to do, 36 frames\ntime: unknown, as no run with these settings has worked here" in printed
    assert "--probe-speed" in printed


@pytest.mark.parametrize(
    ("rate", "device", "workers", "text"),
    [
        (10.0, "cpu", "1", "about 10 s at 10.0 frames/s with one worker, measured on a.mp4"),
        (10.0, "cpu", "4", "about 2 s at 10.0 frames/s with each of 4 workers, measured on a.mp4"),
        (10.0, "cuda", "auto", "about 10 s at 10.0 frames/s with one worker, measured on a.mp4"),
    ],
)
def test_time_by_probe_counts_the_workers(rate: float, device: str, workers: str, text: str):
    assert time_by_probe(rate, device, workers, 100, "a.mp4") == text


@pytest.mark.parametrize(
    ("summary", "text"),
    [
        ({"frames": 9, "elapsed_s": 3}, "time: unknown"),  # of a version that measured no steady state
        ({"frames": 9, "elapsed_s": 60, "start_s": 50.0, "frames_per_second": 2.0}, "about 53 s at the 2.0 frames/s"),
        ({"frames": 0, "start_s": None, "frames_per_second": None}, "time: unknown"),
    ],
)
def test_plan_command_takes_the_speed_of_the_last_run(archive: Path, capsys: pytest.CaptureFixture[str], summary, text):
    context = prepare(["in"], "out", settings_from({})).context
    whole = {"run_id": "r", "settings_fingerprint": context.data_fingerprint, **summary}
    LocalStore("out").put("runs/r/summary.json", json.dumps(whole).encode())
    assert main(["plan", "in", "--output", "out"]) == 0
    assert text in capsys.readouterr().out


@pytest.mark.slow
def test_plan_command_measures_the_speed(archive: Path, capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setattr(speed_probe, "WARM_UP_SECONDS", 0.0)
    monkeypatch.setattr(speed_probe, "PROBE_SECONDS", 0.1)
    before = tree(archive)
    assert main(["plan", "in", "--output", "out", "--probe-speed", "--workers", "3"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"about \d+ s at \d+\.\d frames/s with each of 3 workers, measured on \S+/in/a\.mp4\n", printed)
    assert tree(archive) == before


def test_plan_command_counts_sampled_frames(archive: Path, capsys: pytest.CaptureFixture[str]):
    for chosen, frames in ((["--stride", "3"], 2), (["--fps", "5"], 3), ([], 6)):
        assert main(["plan", "in", "--output", "out", *chosen]) == 0
        assert f"1 s of video to do, {frames} frames" in capsys.readouterr().out


@pytest.mark.parametrize(("listed", "videos"), [("in\n", 1), ("# all of it\n\n  in/a.mp4  \n", 1)])
def test_inputs_from_reads_a_list(archive: Path, capsys: pytest.CaptureFixture[str], listed: str, videos: int):
    (archive / "list.txt").write_text(listed)
    assert main(["plan", "--inputs-from", "list.txt", "--output", "out"]) == 0
    assert f"{videos} compute" in capsys.readouterr().out


def test_verify_command_reports_an_empty_output(archive: Path, capsys: pytest.CaptureFixture[str]):
    before = tree(archive)
    assert main(["verify", "--output", "empty"]) == 3
    printed = capsys.readouterr().out
    assert "problem: " in printed
    assert "1 problem: 0 videos (0 failed), 0 frames, 0 persons" in printed
    assert tree(archive) == before
