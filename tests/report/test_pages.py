"""The pages as HTML: what they say, and that nothing in them is taken for code."""

import io
import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from support.factories import publish_record
from support.memory_store import MemoryStore
from support.page_factories import frame_line, material, movement, record_of, run_facts, track_row, video_line
from support.upkeep_factories import publish

from posebatch.cli import main
from posebatch.core.errors import InputError
from posebatch.dataset.gc import age_limit, unreferenced
from posebatch.dataset.tables.records import RecordLog
from posebatch.dataset.verify import verify
from posebatch.report.gif import AnnotatedFrame, encode_gif
from posebatch.report.pages import pictures, writing
from posebatch.report.pages.addresses import VIDEO_PAGE, relative_address
from posebatch.report.pages.advice import advice_for
from posebatch.report.pages.pictures import stills, thumbnail
from posebatch.report.pages.run_differences import change_of, differences
from posebatch.report.pages.run_facts import chosen_run, run_ids
from posebatch.report.pages.run_page import (
    RunMaterial,
    histogram,
    listed_problems,
    run_page,
    stage_shares,
    state_text,
    worst_videos,
)
from posebatch.report.pages.video_page import TRACKS_LISTED, listed_tracks, video_page
from posebatch.report.pages.writing import write_report
from posebatch.report.writers import writer_for
from posebatch.storage.local import LocalStore

EVIL = '</script><script>window.taken=1</script><img src=x onerror="window.taken=1">\'&.mp4'


def page_of_run(*lines, differences=None, paged=(), thumbnails=(), reasons=(), **summary):
    facts = run_facts(lines, **summary)
    return run_page(
        RunMaterial("/out", facts, differences, frozenset(paged), dict(thumbnails), dict(reasons)),
    )


def gif(frames=6, size=(40, 30), noise=False):
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 255, (size[1], size[0], 3), np.uint8)
        if noise
        else np.full((size[1], size[0], 3), 40 * i, np.uint8)
        for i in range(frames)
    ]
    return encode_gif(AnnotatedFrame(i / 5, image) for i, image in enumerate(images))[0]


# --- nothing in a page is code that did not come from the package ---


def test_names_and_reasons_are_escaped_on_the_page_of_a_video():
    evil = material(
        record=record_of(f"/in/{EVIL}", status="partial", error=EVIL, error_kind="damaged"),
        output_path=f"a/{EVIL}",
        tracks=[track_row(grade_reason=EVIL)],
    )
    assert not tags_of_attack(video_page(evil))


def test_names_and_reasons_are_escaped_on_the_page_of_a_run():
    line = video_line(status="partial", error=EVIL, error_kind=EVIL, grade="C")
    evil = replace(line, video=f"/in/{EVIL}", output_path=EVIL)
    complaint = {"video": EVIL, "status": "failed before", "reason": EVIL}
    html = page_of_run(
        evil,
        differences=differences(
            run_facts([replace(evil, grade="A")], settings=f"x: {json.dumps(EVIL)}\n"), run_facts([evil])
        ),
        paged=[EVIL],
        reasons={EVIL: EVIL},
        complaints=[complaint],
        warnings=[EVIL],
    )
    assert not tags_of_attack(html)


def tags_of_attack(html):
    return [tag for tag in ("<script>window", "<img src=x") if tag in html]


@pytest.mark.parametrize("html", [video_page(material()), page_of_run(video_line())])
def test_a_page_names_no_address_outside(html):
    code = html.replace("http://www.w3.org/2000/svg", "")
    assert "http://" not in code
    assert "https://" not in code
    assert "default-src &#39;none&#39;" in html


# --- the page of a video ---


@pytest.mark.parametrize(
    ("key", "to", "address"),
    [
        ("runs/r/report.html", "videos/a.parquet", "../../videos/a.parquet"),
        ("reports/a.mp4.html", "poses/a.mp4.parquet", "../poses/a.mp4.parquet"),
        ("reports/x/a.html", "poses/x/%5Fa ü#?.parquet", "../../poses/x/%255Fa%20%C3%BC%23%3F.parquet"),
    ],
)
def test_relative_addresses_lead_from_a_page_to_an_object(key, to, address):
    assert relative_address(key, to) == address


def test_the_page_of_a_video_that_was_thinned_says_so():
    shown = material()
    thin = replace(shown, player=replace(shown.player, step=4))
    assert "every 4th processed frame" in video_page(thin)
    assert "th processed frame" not in video_page(shown)


def test_the_page_of_a_video_without_motion_says_how_to_derive_it():
    line = frame_line()
    nobody = movement(line, tracks=1)
    nobody = type(nobody)(*(column[:0] for column in vars(nobody).values()))
    html = video_page(material(line, nobody, record=record_of(tracks=None, grade=None), tracks=[]))
    assert "posebatch derive" in html


def test_the_main_track_is_listed_first_and_then_the_longest():
    rows = [track_row(i, is_main=i == 2, frames_seen=10 * i) for i in range(TRACKS_LISTED + 5)]
    listed = [row["id"] for row in listed_tracks(rows)]
    assert listed[:3] == [2, TRACKS_LISTED + 4, TRACKS_LISTED + 3]
    assert "5 shorter tracks are left out" in video_page(material(tracks=rows))


def test_the_page_of_a_partial_video_names_the_reason_and_what_to_do():
    record = record_of(status="partial", error="the file ends early", error_kind="damaged")
    html = video_page(material(record=record))
    assert "the file ends early" in html
    assert advice_for("damaged") in html


def clip(form, frames, fps=5, size=(40, 30)):
    """A preview whose frames become brighter."""
    sink = io.BytesIO()
    with writer_for(form, frames, Fraction(1, fps)) as writer:
        for number in range(frames):
            image = np.full((size[1], size[0], 3), 240 * number // frames, np.uint8)
            writer.add(AnnotatedFrame(number / fps, image))
        writer.finish(sink)
    return sink.getvalue()


@pytest.mark.parametrize("form", ["gif", "webp", "mp4"])
def test_stills_have_the_times_and_the_pictures_of_the_preview(form):
    found = stills(clip(form, 4))
    assert [round(still.time_s, 2) for still in found] == [0.0, 0.2, 0.4, 0.6]
    assert [np.asarray(Image.open(io.BytesIO(still.webp))).mean() for still in found] == pytest.approx(
        [0, 60, 120, 180], abs=6
    )


def test_stills_of_a_long_mp4_are_thinned_evenly(monkeypatch):
    preview = clip("mp4", 310, fps=25)
    monkeypatch.setattr(pictures, "MAX_STILLS_BYTES", 4 * len(stills(clip("mp4", 1))[0].webp))
    times = [still.time_s for still in stills(preview)]
    assert len(times) in (2, 3, 4)
    assert np.diff(times) == pytest.approx(times[1], rel=0.2)
    assert times[-1] > 6


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"no picture", b"\0\0\0\x20ftypisom"])
def test_a_preview_that_is_no_picture_gives_none(content):
    assert stills(content) == []
    assert thumbnail(content) is None


def test_stills_that_would_be_too_large_are_thinned_evenly(monkeypatch):
    whole = stills(gif(8, (200, 150), noise=True))
    most = sum(len(still.webp) for still in whole) // 2
    monkeypatch.setattr(pictures, "MAX_STILLS_BYTES", most)
    fewer = stills(gif(8, (200, 150), noise=True))
    assert sum(len(still.webp) for still in fewer) <= most
    assert [round(still.time_s, 1) for still in fewer] == [0.0, 0.4, 0.8, 1.2][: len(fewer)] or len(fewer) < 4
    assert len(fewer) >= 2


# --- the page of a run ---


def test_the_worst_videos_are_those_with_the_worst_grades():
    lines = tuple(video_line(i, grade=grade) for i, grade in enumerate("ABCDADBC"))
    assert "".join(line.grade for line in worst_videos(lines)) == "DDCCBB"
    assert len(worst_videos(lines * 4)) == 10


def test_the_histogram_counts_published_videos_by_grade():
    lines = (video_line(0, grade="A"), video_line(1, grade="A"), video_line(2, grade=None))
    assert [(bar["grade"], bar["count"], bar["share"]) for bar in histogram(lines)] == [
        ("A", 2, 1.0),
        ("B", 0, 0.0),
        ("C", 0, 0.0),
        ("D", 0, 0.0),
        ("none", 1, 0.5),
    ]
    assert histogram((video_line(status="failed", grade=None),)) == []


def test_problems_of_this_run_come_before_those_of_earlier_runs():
    failed = video_line(status="failed", error="no frames", error_kind="damaged")
    before = {"video": "/in/old.mp4", "status": "failed before", "reason": "limit: too large"}
    problems = listed_problems(run_facts([failed], complaints=[{**before, "video": failed.video}, before]))
    assert [(problem["video"], problem["advice"]) for problem in problems] == [
        (failed.video, advice_for("damaged")),
        ("/in/old.mp4", advice_for("limit")),
    ]


@pytest.mark.parametrize(
    ("summary", "words", "bad"),
    [
        ({}, "killed", True),
        ({"finished": False, "videos_left": 7}, "7 videos were left", True),
        ({"finished": True, "exit_code": 3, "complaints": []}, "exit code 3", True),
        ({"finished": True, "exit_code": 0, "complaints": []}, "without complaints", False),
    ],
)
def test_the_state_of_a_run_is_put_into_words(summary, words, bad):
    text, is_bad = state_text(summary)
    assert words in text
    assert is_bad == bad


def test_shares_of_the_stages_sum_to_one():
    shares = stage_shares(record_of().seconds)
    assert sum(stage["share"] for stage in shares) == pytest.approx(1)
    assert stage_shares(record_of().seconds.__class__()) == []


def test_a_run_of_many_videos_lists_some_and_counts_the_others():
    html = page_of_run(*(video_line(i) for i in range(250)))
    assert html.count('class="shot"') == 200
    assert "50 more videos are left out here" in html
    assert "250 videos have no page yet" in html.replace("\n", " ")


def test_differences_name_settings_and_videos_that_changed():
    one, other = video_line(0, grade="C"), video_line(1)
    before = run_facts([one, other], run_id="r1", settings="stride: 2\nfps: null\n", frames_per_second=10.0)
    now = run_facts([replace(one, grade="B"), other, video_line(2)], settings="stride: 1\nfps: null\n")
    found = differences(before, now)
    assert found.settings == [("stride", "2", "1")]
    assert [(line.video, change) for line, change in found.videos] == [(one.video, "grade C → B")]
    assert (found.videos_changed, found.videos_in_both) == (1, 2)
    assert ("frames/s", "10.0", "12.5") in found.figures


def test_a_video_that_is_the_same_in_both_runs_has_no_change():
    assert change_of(video_line(), video_line()) == ""


# --- written into an output ---


def test_a_report_is_written_beside_the_results_and_verify_and_gc_leave_it_alone(tmp_path):
    record = publish(tmp_path, "ski/a.mp4", preview=["gif"])
    write_run(LocalStore(tmp_path), record)
    store = LocalStore(tmp_path)
    problems = verify(store, deep=True).problems
    written = write_report(store)
    assert written.pages == 1
    page = store.read("reports/ski/a.mp4.html").decode()
    assert "../../poses/ski/a.mp4.parquet" in page
    assert "../../reports/ski/a.mp4.html" in store.read("runs/20260101T000000Z-aaaa/report.html").decode()
    assert verify(store, deep=True).problems == problems
    assert [found.key for found in unreferenced(store, replace(age_limit(store, 1), now=4e9))] == []


def test_a_report_about_a_run_that_is_not_there_names_those_that_are(tmp_path):
    write_run(LocalStore(tmp_path), publish(tmp_path, "a.mp4"))
    with pytest.raises(InputError, match="20260101T000000Z-aaaa"):
        write_report(LocalStore(tmp_path), "other")


def test_a_report_about_no_video_names_some(tmp_path):
    write_run(LocalStore(tmp_path), publish(tmp_path, "a.mp4"))
    with pytest.raises(InputError, match=r"a\.mp4"):
        write_report(LocalStore(tmp_path), match="b/*")


def test_a_damaged_record_costs_the_page_of_its_video_alone(tmp_path, capsys):
    write_run(LocalStore(tmp_path), *(publish(tmp_path, f"{name}.mp4") for name in "ab"))
    (tmp_path / "videos/a.mp4.parquet").write_bytes(b"half")
    assert main(["report", "--output", str(tmp_path)]) == 3
    printed = capsys.readouterr()
    assert printed.out.startswith("1 page about videos")
    assert "no page: " in printed.err
    assert "videos/a.mp4.parquet: a commit record cannot be read" in printed.err


def test_no_more_pages_are_made_than_asked_for(tmp_path):
    records = [publish(tmp_path, f"{name}.mp4") for name in "abc"]
    write_run(LocalStore(tmp_path), *records)
    written = write_report(LocalStore(tmp_path), most=2)
    assert (written.pages, written.left_out) == (2, 1)


def test_a_large_motion_table_gives_the_same_page_as_one_in_memory(tmp_path, monkeypatch):
    write_run(LocalStore(tmp_path), publish(tmp_path, "a.mp4"))
    write_report(LocalStore(tmp_path))
    page = LocalStore(tmp_path).read("reports/a.mp4.html")
    monkeypatch.setattr(writing, "MOST_IN_MEMORY", 0)
    write_report(LocalStore(tmp_path))
    assert LocalStore(tmp_path).read("reports/a.mp4.html") == page
    assert b'"rows":0' not in page


def test_a_video_without_tracks_gets_a_page(tmp_path):
    write_run(LocalStore(tmp_path), publish(tmp_path, "a.mp4", track=False))
    assert write_report(LocalStore(tmp_path)).pages == 1
    assert b"posebatch derive" in LocalStore(tmp_path).read("reports/a.mp4.html")


def test_a_failed_video_gets_no_page():
    store = MemoryStore()
    failed = record_of(status="failed", error="no frames", error_kind="damaged", objects=(), info=None)
    publish_record(store, "a.mp4", failed)
    write_run(store, failed)
    assert write_report(store, match="a.mp4").pages == 0


def test_an_output_without_runs_has_nothing_to_report(tmp_path):
    assert run_ids(LocalStore(tmp_path)) == []
    with pytest.raises(InputError, match="no run"):
        chosen_run(LocalStore(tmp_path), None)


def test_the_command_prints_where_the_report_is(tmp_path, capsys):
    write_run(LocalStore(tmp_path), publish(tmp_path, "a.mp4"))
    assert main(["report", "--output", str(tmp_path)]) == 0
    assert f"{tmp_path}/runs/20260101T000000Z-aaaa/report.html" in capsys.readouterr().out
    assert main(["report", "--output", str(tmp_path), "--max-pages", "-1"]) == 2


def test_the_page_of_a_folder_that_ends_like_a_page_has_a_key_of_its_own():
    assert VIDEO_PAGE.key("a.html/b.mp4") == "reports/a%2Ehtml/b.mp4.html"


def write_run(store, *records, run_id="20260101T000000Z-aaaa"):
    """The folder of a run that published these videos."""
    log, sink = RecordLog(), io.BytesIO()
    for record in records:
        log.add(record)
    log.write(sink)
    store.put(f"runs/{run_id}/videos.parquet", sink)
    store.put(f"runs/{run_id}/settings.yaml", b"stride: 1\n")
    store.put(f"runs/{run_id}/summary.json", json.dumps({"finished": True, "exit_code": 0}).encode())
