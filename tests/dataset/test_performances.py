"""What a user names is found in an output, or the message says what is there."""

from pathlib import Path

import numpy as np
import pytest
from support.walkers import publish_motion, publish_record, walk

from posebatch.core.errors import InputError, UsageError
from posebatch.dataset.performances import Wanted, matching_videos, parse_wanted, read_performance


def two_cycles(share):
    return 2 * share


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    root = tmp_path_factory.mktemp("out")
    short, long = walk(two_cycles, 1.0), walk(two_cycles, 3.0)
    publish_motion(root, "clip.mp4", short, long, main=1)
    publish_motion(root, "ski/run[1].mp4", short, long, main=None)
    publish_motion(root, "ski/run[2].mp4", long, main=None)
    publish_motion(root, "empty.mp4")
    return str(root)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a.mp4", Wanted("a.mp4")),
        ("a.mp4#0", Wanted("a.mp4", 0)),
        ("a.mp4@2-5.5", Wanted("a.mp4", None, 2.0, 5.5)),
        ("x/a b.mp4#12@.5-2", Wanted("x/a b.mp4", 12, 0.5, 2.0)),
        ("a.mp4@3-", Wanted("a.mp4", None, 3.0)),
        ("a.mp4@-3", Wanted("a.mp4", None, 0.0, 3.0)),
        ("a#1.mp4", Wanted("a#1.mp4")),
        ("a@home.mp4", Wanted("a@home.mp4")),
    ],
)
def test_name_is_taken_apart(text, wanted):
    assert parse_wanted(text) == wanted


@pytest.mark.parametrize("text", ["", "a.mp4@5-2", "a.mp4@2-2", "a.mp4@.-."])
def test_name_that_means_nothing_is_refused(text):
    with pytest.raises(UsageError, match=r"as in clip\.mp4"):
        parse_wanted(text)


def test_main_person_is_the_default(output):
    chosen = read_performance(output, parse_wanted("clip.mp4"))
    assert (chosen.track, chosen.video, chosen.source, chosen.grade) == (1, "clip.mp4", "/archive/clip.mp4", "A")
    assert chosen.performance.label == "clip.mp4#1"
    np.testing.assert_allclose(chosen.performance.time_s, np.arange(76) / 25)
    np.testing.assert_allclose(chosen.performance.angles, walk(two_cycles, 3.0).angles, atol=1e-3)


def test_only_person_is_taken_without_a_main_person(output):
    assert read_performance(output, parse_wanted("ski/run[2].mp4")).track == 0


def test_end_of_a_path_is_enough(output):
    assert read_performance(output, parse_wanted("run[2].mp4")).video == "ski/run[2].mp4"


def test_range_is_part_of_the_label(output):
    chosen = read_performance(output, parse_wanted("clip.mp4#0@0.2-0.6"))
    assert chosen.performance.label == "clip.mp4#0@0.2-0.6"
    np.testing.assert_allclose(chosen.performance.time_s, np.arange(5, 16) / 25)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("empty.mp4", "empty.mp4: nobody was tracked in it"),
        ("clip.mp4#7", r"clip.mp4: no track 7; there are 2 tracks: 0 \(0.0 to 1.0 s\), 1 \(0.0 to 3.0 s\)"),
        ("ski/run[1].mp4", r"no main person; choose a track, as in VIDEO#0; there are 2 tracks: 0 \("),
        ("clip.mp4@10-12", "track 1 is not seen from 10 to 12 s; it is seen from 0.00 to 3.00 s"),
        ("clap.mp4", "no video 'clap.mp4'; there is clip.mp4"),
        ("run.mp4", r"no video 'run.mp4'; there is ski/run\[1\].mp4|ski/run\[2\].mp4"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(output, text, message):
    with pytest.raises(InputError, match=message):
        read_performance(output, parse_wanted(text))


def test_video_that_failed_says_why(tmp_path):
    publish_record(tmp_path, "clip.mp4", error="the file is empty")
    with pytest.raises(InputError, match=r"clip.mp4 failed, so there is nothing to show: the file is empty"):
        read_performance(str(tmp_path), parse_wanted("clip.mp4"))


def test_output_without_motion_says_derive(tmp_path):
    publish_record(tmp_path, "clip.mp4")
    with pytest.raises(InputError, match=rf"clip.mp4 has no motion; run: posebatch derive --output {tmp_path}"):
        read_performance(str(tmp_path), parse_wanted("clip.mp4"))
    with pytest.raises(InputError, match="it has no motion; run: posebatch derive"):
        read_performance(str(tmp_path), parse_wanted("other.mp4"))


def test_folder_that_is_no_output_is_refused(tmp_path):
    with pytest.raises(InputError, match="no videos; is it an output of posebatch"):
        read_performance(str(tmp_path), parse_wanted("clip.mp4"))


def test_glob_matches_paths(output):
    assert set(matching_videos(output, "ski/*")) == {"ski/run[1].mp4", "ski/run[2].mp4"}
    with pytest.raises(InputError, match="no video with motion matches 'x"):
        matching_videos(output, "x*")


@pytest.mark.s3
def test_output_in_a_bucket_is_read_the_same_way(output, s3_server, monkeypatch):
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    client = s3_server.client()
    client.create_bucket(Bucket="performances")
    for path in sorted(Path(output).rglob("*.parquet")):
        client.put_object(Bucket="performances", Key=f"some/out/{path.relative_to(output)}", Body=path.read_bytes())
    wanted = parse_wanted("clip.mp4#1@1-2")
    chosen = read_performance("s3://performances/some/out", wanted, s3_server.endpoint_url)
    np.testing.assert_array_equal(chosen.performance.angles, read_performance(output, wanted).performance.angles)
    with pytest.raises(InputError, match=r"s3://performances/some/out: no video 'clap.mp4'; there is clip\.mp4"):
        read_performance("s3://performances/some/out", parse_wanted("clap.mp4"), s3_server.endpoint_url)
