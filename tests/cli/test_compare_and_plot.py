"""`posebatch compare` and `posebatch plot`, from their arguments to their files."""

import importlib.util
import io
import re
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image
from support.factories import video_bytes
from support.walkers import publish_motion, publish_record, walk

import posebatch
from posebatch.cli.entry import main
from posebatch.dataset.tables.comparisons import COMPARISON_SCHEMA
from posebatch.motion.comparing.comparison import DEFAULT_ANGLES
from posebatch.motion.movement.motion_block import ANGLE_NAMES


def two_cycles(share):
    return 2 * share


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    root = tmp_path_factory.mktemp("out")
    slow = walk(two_cycles, 3.0)
    limping, joints = slow.angles.copy(), slow.joints.copy()
    limping[:, ANGLE_NAMES.index("left_knee")] *= 0.5
    joints[30:40, 13, 2] = 0
    publish_motion(root, "fast.mp4", walk(two_cycles, 2.0))
    publish_motion(root, "slow.mp4", slow, walk(two_cycles, 0.1))
    publish_motion(root, "limping.mp4", replace(slow, angles=limping, joints=joints))
    publish_motion(root, "<script>alert(1)<.mp4", slow)
    for number in range(3):
        publish_motion(root, f"ref/{number}.mp4", walk(two_cycles, 2.0 + number / 4))
    publish_motion(root, "ref/short.mp4", walk(two_cycles, 0.1))
    return str(root)


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_compare_writes_table_page_and_clips(output, tmp_path, capsys):
    assert main(["compare", "fast.mp4", "limping.mp4", "--output", output, "--to", str(tmp_path / "c")]) == 0
    printed = capsys.readouterr()
    assert re.search(r"left_knee +[\d.]+ +-\d\d\.\d", printed.out)
    assert "/archive/fast.mp4 cannot be read: its pictures are left out" in printed.err
    pd = pytest.importorskip("pandas")
    rows = pd.read_parquet(tmp_path / "c/comparison.parquet")
    assert list(rows.columns) == COMPARISON_SCHEMA.names
    assert list(rows["angle"].unique()) == list(DEFAULT_ANGLES)
    knee = rows[rows["angle"] == "left_knee"]
    np.testing.assert_allclose(knee["difference"], knee["b"] - knee["a"], atol=1e-4)
    assert knee["phase"].iloc[[0, -1]].tolist() == [0, 1]
    np.testing.assert_allclose(knee["time_b"].iloc[[0, -1]], [0, 3], atol=1e-9)
    assert knee["reference_low"].isna().all()
    with Image.open(tmp_path / "c/comparison.gif") as gif:
        assert gif.n_frames > 30
    with av.open(str(tmp_path / "c/comparison.mp4")) as mp4:
        frames, seconds = mp4.streams.video[0].frames, mp4.duration / 1e6
    assert (frames, seconds) == (100, pytest.approx(4.0)), "2 s are slowed down to 4 s"
    page = (tmp_path / "c/comparison.html").read_text()
    assert "grade" in text_of(page)
    assert page.count('class="curves"') == len(DEFAULT_ANGLES)
    assert page.count('class="figure"') == 6


def test_page_asks_for_nothing_and_runs_nothing(output, tmp_path):
    main(["compare", "fast.mp4", "slow.mp4", "--output", output, "--to", str(tmp_path)])
    page = (tmp_path / "comparison.html").read_text()
    assert all(address.startswith("data:") for address in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert "url(" not in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_names_are_escaped(output, tmp_path):
    assert main(["compare", "fast.mp4", "<script>alert(1)<.mp4", "--output", output, "--to", str(tmp_path)]) == 0
    page = (tmp_path / "comparison.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;.mp4#0" in page


def test_references_make_a_band_and_bad_ones_are_named(output, tmp_path, capsys):
    arguments = ["compare", "fast.mp4", "limping.mp4", "--output", output, "--to", str(tmp_path)]
    assert main([*arguments, "--reference", "ref/*"]) == 0
    assert "reference left out: ref/short.mp4#0: too short to compare" in capsys.readouterr().err
    page = (tmp_path / "comparison.html").read_text()
    assert "of 4 references, A included" in text_of(page)
    assert page.count('class="band"') >= len(DEFAULT_ANGLES)
    rows = pytest.importorskip("pandas").read_parquet(tmp_path / "comparison.parquet")
    assert (rows["reference_low"] <= rows["reference_high"] + 1e-4).all()
    assert np.abs(rows["reference_median"] - rows["a"]).max() < 3


def test_mirror_exchanges_sides(output, tmp_path):
    arguments = ["compare", "limping.mp4", "limping.mp4", "--output", output, "--to", str(tmp_path), "--mirror", "B"]
    assert main(arguments) == 0
    rows = pytest.importorskip("pandas").read_parquet(tmp_path / "comparison.parquet")
    largest = rows.groupby("angle")["difference"].apply(lambda column: column.abs().max())
    assert largest["left_knee"] > 10
    assert largest["right_knee"] > 10
    assert "B, mirrored" in (tmp_path / "comparison.html").read_text()


def test_views_from_other_directions_are_told(tmp_path, capsys):
    publish_motion(tmp_path, "side.mp4", walk(two_cycles, 2.0))
    publish_motion(tmp_path, "front.mp4", walk(two_cycles, 2.0, heading=1.2))
    assert main(["compare", "side.mp4", "front.mp4", "--output", str(tmp_path), "--to", str(tmp_path)]) == 0
    told = "front.mp4#0 is seen from the front or the back and side.mp4#0 is not"
    assert told in capsys.readouterr().err
    assert told in (tmp_path / "comparison.html").read_text()
    assert main(["compare", "side.mp4", "side.mp4", "--output", str(tmp_path), "--to", str(tmp_path)]) == 0
    assert "is seen from the front" not in capsys.readouterr().err


def test_second_output_and_chosen_angles(output, tmp_path):
    other = tmp_path / "other"
    publish_motion(other, "mine.mp4", walk(two_cycles, 3.0))
    arguments = ["compare", "fast.mp4", "mine.mp4", "--output", output, "--output-b", str(other)]
    assert main([*arguments, "--angles", "left_knee", "trunk", "--to", str(tmp_path)]) == 0
    rows = pytest.importorskip("pandas").read_parquet(tmp_path / "comparison.parquet")
    assert list(rows["angle"].unique()) == ["left_knee", "trunk"]


def test_readable_source_gives_pictures(tmp_path):
    walker = walk(two_cycles, 2.0)
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(video_bytes(frames=51, size=(640, 480)))
    publish_motion(tmp_path / "out", "clip.mp4", walker, source=str(clip))
    arguments = ["compare", "clip.mp4", "clip.mp4@0.5-2", "--output", str(tmp_path / "out"), "--to", str(tmp_path)]
    assert main(arguments) == 0
    page = (tmp_path / "comparison.html").read_text()
    assert page.count("data:image/jpeg;base64,") == page.count('class="figure"') == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody.mp4", "slow.mp4"], "no video 'nobody.mp4'; there is"),
        (["fast.mp4", "slow.mp4#5"], "no track 5; there are 2 tracks: 0 (0.0 to 3.0 s), 1 (0.0 to 0.1 s)"),
        (["fast.mp4@90-99", "slow.mp4"], "not seen from 90 to 99 s; it is seen from 0.00 to 2.00 s"),
        (["fast.mp4", "slow.mp4#1"], "slow.mp4#1: too short to compare"),
        (["fast.mp4", "slow.mp4", "--angles", "left_kne"], "no angle is called 'left_kne'; did you mean 'left_knee'?"),
        (["fast.mp4", "slow.mp4", "--mirror", "C"], "invalid choice: 'C'"),
        (["fast.mp4@5-1", "slow.mp4"], "the range must be seconds, the smaller first"),
        (["fast.mp4", "slow.mp4", "--reference", "nothing*"], "no video with motion matches 'nothing*'"),
        (["fast.mp4", "slow.mp4", "--reference", "ref/short*"], "no reference besides A and B: reference left out"),
    ],
)
def test_compare_refuses_bad_input_in_words(output, tmp_path, capsys, arguments, message):
    assert main(["compare", *arguments, "--output", output, "--to", str(tmp_path / "c")]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("library", "arguments", "extra"),
    [
        ("dtaidistance", ["compare", "fast.mp4", "slow.mp4"], "compare"),
        ("matplotlib", ["plot", "fast.mp4"], "plot"),
    ],
)
def test_missing_library_names_its_extra(output, monkeypatch, capsys, library, arguments, extra):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == library else find_spec(name))
    assert main([*arguments, "--output", output]) == 2
    assert f"{library} is not installed: pip install 'posebatch[{extra}]'" in capsys.readouterr().err


def test_folder_that_cannot_be_written_is_named(output, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    arguments = ["compare", "fast.mp4", "slow.mp4", "--output", output, "--to", str(tmp_path / "file")]
    assert main(arguments) == 2
    assert f"--to {tmp_path / 'file'} cannot be written" in capsys.readouterr().err


# --- plot ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["knee.png", "knee.svg"])
def test_plot_writes_a_picture(output, tmp_path, capsys, name):
    arguments = ["plot", "limping.mp4", "--output", output, "--joint", "left_knee", "--to", str(tmp_path / name)]
    assert main(arguments) == 0
    assert f"look at  {tmp_path / name}" in capsys.readouterr().out
    content = (tmp_path / name).read_bytes()
    if name.endswith("svg"):
        assert b"<svg" in content
    else:
        assert Image.open(io.BytesIO(content)).size == (1350, 600)


def test_plot_is_named_after_video_and_joint(output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plot", "ref/0.mp4", "--output", output, "--joint", "trunk"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["0-trunk.png"]


def test_gaps_are_gaps_and_interpolated_parts_are_dashed(output, tmp_path):
    walker = walk(two_cycles, 2.0)
    angles, joints = walker.angles.copy(), walker.joints.copy()
    angles[10:15, 0] = np.nan
    joints[30:35, 15, 2] = 0
    publish_motion(tmp_path, "a.mp4", replace(walker, angles=angles, joints=joints))
    figure = posebatch.plot(str(tmp_path), "a.mp4")
    axes = figure.axes[0]
    whole, _, dashed = axes.lines[:3]
    unknown = np.flatnonzero(np.isnan(whole.get_ydata()))
    assert unknown.tolist() == [*range(10, 15), *range(30, 35)]
    assert np.flatnonzero(~np.isnan(dashed.get_ydata())).tolist() == [*range(29, 36)]
    assert dashed.get_linestyle() != "-"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["left knee", "interpolated"]


def test_plot_in_python_takes_several_joints_and_a_track(output):
    figure = posebatch.plot(output, "slow.mp4@1-2", joint=["left_knee", "right_knee"], track=0)
    assert figure.axes[0].get_title(loc="left") == "slow.mp4#0@1-2"
    assert figure.axes[0].get_xlim() == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["slow.mp4", "--joint", "knee"], "no angle is called 'knee'"),
        (["slow.mp4", "--track", "9"], "no track 9; there are 2 tracks"),
        (["slow.mp4#0", "--track", "1"], "names track 0, and track 1 was chosen too"),
        (["slow.mp4", "--to", "x.pdf"], "must end in .png or .svg"),
        (["slow.mp4", "--to", "no/such/folder/x.png"], "cannot be written"),
    ],
)
def test_plot_refuses_bad_input_in_words(output, capsys, arguments, message):
    assert main(["plot", *arguments, "--output", output]) == 2
    assert message in capsys.readouterr().err


def test_output_without_motion_says_derive(tmp_path, capsys):
    publish_record(tmp_path, "a.mp4")
    assert main(["plot", "a.mp4", "--output", str(tmp_path)]) == 2
    assert "a.mp4 has no motion; run: posebatch derive --output" in capsys.readouterr().err
    assert main(["compare", "a.mp4", "a.mp4", "--output", str(tmp_path)]) == 2
    assert "posebatch derive" in capsys.readouterr().err
