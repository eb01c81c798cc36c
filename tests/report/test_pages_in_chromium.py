"""The pages in a real browser: nothing is fetched, nothing complains, and the player shows what the tables say."""

import io
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from support.browser import MISSING, chromium
from support.page_factories import (
    SIZE,
    frame_line,
    knee_degrees,
    material,
    movement,
    player_of,
    record_of,
    run_facts,
    track_row,
    video_line,
)

from posebatch.dataset.tables.page_data import FrameLine
from posebatch.report.pages.pictures import Still
from posebatch.report.pages.run_page import TABLE_VIDEOS, RunMaterial, run_page
from posebatch.report.pages.video_page import video_page
from posebatch.report.picture_writer import AnnotatedFrame
from posebatch.report.writers import writer_for
from posebatch.storage.open import open_store

pytestmark = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")

EVIL = '</script><script>window.taken=1</script><img src=x onerror="window.taken=1">\'&.mp4'


@pytest.fixture(scope="module")
def browser():
    with chromium() as page:
        yield page


def opened(browser, tmp_path, html, ready="window.posebatch"):
    file = tmp_path / "page.html"
    file.write_text(html, encoding="utf-8")
    browser.resize(1440, 900)
    browser.console()
    browser.requests_made()
    browser.open(file)
    browser.wait_for(ready)
    return browser


def uneven_line():
    """Frames of a phone, at an uneven rate, of which every second was processed."""
    times = 3.0 + np.cumsum(np.r_[0, np.tile([0.033, 0.041, 0.029, 0.25], 30)])
    index = 2 * np.arange(len(times), dtype=np.int64)
    return FrameLine(index, times, np.ones(len(times), np.int32), np.ones(len(times), bool))


def test_the_player_shows_at_each_time_the_frame_that_has_begun(browser, tmp_path):
    line = uneven_line()
    page = opened(browser, tmp_path, video_page(material(line)))
    for time_s in (3.0, 3.02, 3.5, 7.123, float(line.time_s[40]), 99.0):
        page.run("posebatch.seek(arguments[0])", time_s)
        begun = max(0, int(np.searchsorted(line.time_s, time_s + 0.0005, side="right")) - 1)
        assert page.run("return posebatch.frame") == line.index[begun]
        assert page.run("return posebatch.time") == pytest.approx(line.time_s[begun], abs=0.001)


def test_the_player_has_the_joints_and_angles_of_the_table(browser, tmp_path):
    line = frame_line(60)
    rows = movement(line, tracks=2, noise_px=2.0)
    page = opened(browser, tmp_path, video_page(material(line, rows)))
    step = max(SIZE) / 4096
    for position, joint in ((0, 0), (17, 13), (59, 16)):
        x, y, state = page.run("return posebatch.joint(1, arguments[0], arguments[1])", position, joint)
        assert (x, y) == pytest.approx(rows.joints[60 + position, joint, :2].tolist(), abs=step)
        assert state == 1
    shown = page.run("return posebatch.angle('left_knee', 30)")
    assert shown == pytest.approx(float(rows.angles[30, 0]), abs=0.06)
    assert page.run("return posebatch.angle('left_elbow', 30)") is None


def test_joints_that_are_not_sure_are_not_drawn(browser, tmp_path):
    line = frame_line(30)
    rows = movement(line)
    joints = rows.joints.copy()
    joints[10:, :, 2] = 0.1
    page = opened(browser, tmp_path, video_page(material(line, replace(rows, joints=joints))))
    page.run("posebatch.seek(0)")
    assert page.run("return posebatch.skeletons") == 1
    page.run("posebatch.seek(0.8)")
    assert page.run("return posebatch.skeletons") == 0


def test_a_player_page_fetches_nothing_and_complains_about_nothing(browser, tmp_path):
    sink = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(sink, "WEBP")
    shown = material(stills=[Still(0.0, sink.getvalue())], record=record_of(status="partial", error="damage"))
    page = opened(browser, tmp_path, video_page(shown))
    page.run("posebatch.play(); return new Promise(done => setTimeout(done, 300))")
    page.run("posebatch.pause()")
    assert page.console() == []
    assert page.requests_made() == [(tmp_path / "page.html").as_uri()]


def test_no_picture_lies_behind_the_skeletons_after_the_end_of_the_preview(browser, tmp_path):
    sink = io.BytesIO()
    Image.new("RGB", (40, 30), (250, 0, 0)).save(sink, "WEBP", lossless=True)
    shown = material(stills=[Still(0.0, sink.getvalue()), Still(1.0, sink.getvalue())])
    page = opened(browser, tmp_path, video_page(shown))
    corner = "return [...document.getElementById('stage').getContext('2d').getImageData(3, 3, 1, 1).data]"
    for time_s, is_red in ((1.5, True), (2.5, False), (0.5, True)):
        page.run("posebatch.seek(arguments[0]); return new Promise(done => setTimeout(done, 200))", time_s)
        assert (page.run(corner)[0] > 100) is is_red, time_s


@pytest.mark.s3
def test_a_page_opens_behind_a_presigned_address(browser, s3_server, monkeypatch):
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    client = s3_server.client()
    client.create_bucket(Bucket="pages")
    html = video_page(material())
    open_store("s3://pages/out", s3_server.endpoint_url).put("reports/a.mp4.html", html.encode())
    address = client.generate_presigned_url("get_object", Params={"Bucket": "pages", "Key": "out/reports/a.mp4.html"})
    browser.console()
    browser.requests_made()
    browser.open(address)
    browser.wait_for("window.posebatch")
    browser.run("posebatch.seek(1.0)")
    assert browser.run("return posebatch.frame") == 25
    assert browser.console() == []
    assert browser.requests_made() == [address]


def test_the_keys_play_and_step(browser, tmp_path):
    page = opened(browser, tmp_path, video_page(material()))
    page.press("\ue014")  # arrow right
    page.press("\ue014")
    assert page.run("return posebatch.frame") == 2
    page.press("\ue012")  # arrow left
    assert page.run("return posebatch.frame") == 1
    page.press(" ")
    page.wait_for("posebatch.frame > 3")
    page.press(" ")
    assert page.run("return posebatch.playing") is False
    page.press("\ue010")  # end
    assert page.run("return posebatch.frame") == 249


def test_one_cursor_marks_the_position_in_all_plots(browser, tmp_path):
    page = opened(browser, tmp_path, video_page(material()))
    page.run("posebatch.seek(4.98)")
    shares = page.run(
        "return [...document.querySelectorAll('.plot')].map(plot => (plot.querySelector('.cursor')"
        ".getBoundingClientRect().left + 1 - plot.querySelector('canvas').getBoundingClientRect().left)"
        " / plot.querySelector('canvas').getBoundingClientRect().width)"
    )
    assert shares == pytest.approx([4.96 / 9.96] * 4, abs=0.01)
    assert str(round(float(knee_degrees(4.96)))) in page.run("return document.getElementById('angle-now').textContent")


def test_a_press_on_a_plot_seeks(browser, tmp_path):
    page = opened(browser, tmp_path, video_page(material()))
    box = page.run("const b = document.querySelector('.plot').getBoundingClientRect(); return [b.left, b.top, b.width]")
    for kind in ("mousePressed", "mouseReleased"):
        x, y = box[0] + box[2] / 2, box[1] + 20
        page.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    assert page.run("return posebatch.time") == pytest.approx(4.98, abs=0.06)


@pytest.mark.parametrize("width", [390, 1440])
def test_no_page_is_wider_than_the_screen(browser, tmp_path, width):
    tracks = [track_row(i, grade_reason="a reason of many words " * 3) for i in range(5)]
    for html in (video_page(material(tracks=tracks)), page_of_run(3)):
        opened(browser, tmp_path, html, "document.readyState === 'complete'")
        browser.resize(width, 844)
        assert browser.run("return document.documentElement.scrollWidth") == width


def test_names_are_text_and_never_code(browser, tmp_path):
    line = frame_line(10)
    evil = material(line, record=record_of(f"/in/{EVIL}"), tracks=[track_row(grade=EVIL, grade_reason=EVIL)])
    page = opened(browser, tmp_path, video_page(evil))
    assert page.run("return window.taken") is None
    assert page.run("return document.querySelector('h1').textContent").startswith(EVIL.rpartition("/")[2])
    html = page_of_run(1, video=f"/in/{EVIL}", output_path=EVIL, status="partial", error=EVIL)
    opened(browser, tmp_path, html, "window.posebatchRun")
    assert page.run("return window.taken") is None
    assert page.run("return document.querySelector('#videos td').textContent") == EVIL
    assert page.console() == []


def page_of_run(videos, **changed):
    facts = run_facts([video_line(number, **changed) for number in range(videos)])
    return run_page(RunMaterial("/out", facts, None, frozenset(), {}, {}))


def test_pictures_of_a_run_are_inserted_when_they_come_into_view(browser, tmp_path):
    lines = [video_line(number) for number in range(150)]
    picture = "data:image/svg+xml;base64,PHN2ZyB4bWxucz0naHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmcnLz4="
    thumbnails = {line.output_path: picture for line in lines}
    html = run_page(RunMaterial("/out", run_facts(lines), None, frozenset(), thumbnails, {}))
    page = opened(browser, tmp_path, html, "document.querySelector('.shot img')")
    page.run("return new Promise(done => setTimeout(done, 200))")
    before = page.run("return document.querySelectorAll('.shot img').length")
    assert 0 < before < 150
    page.run("[...document.querySelectorAll('.shot')].at(-1).scrollIntoView()")
    page.wait_for("[...document.querySelectorAll('.shot')].at(-1).firstChild")
    assert page.console() == []
    assert page.requests_made() == [(tmp_path / "page.html").as_uri()]


def test_a_run_of_more_than_100000_videos_opens_and_says_what_is_left_out(browser, tmp_path):
    html = page_of_run(TABLE_VIDEOS + 7)
    assert len(html) < 5_000_000
    page = opened(browser, tmp_path, html, "window.posebatchRun")
    assert page.run("return [posebatchRun.rows, posebatchRun.shown]") == [TABLE_VIDEOS, 50]
    assert "7 more are left out of this page" in page.run("return document.body.innerText")
    page.run("const f = document.getElementById('filter'); f.value = 'clip 99999'; f.oninput()")
    assert page.run("return document.querySelector('#videos td').textContent") == "clip 99999.mp4"


def test_ten_minutes_of_two_people_stay_below_5_mb_and_open(browser, tmp_path):
    line = frame_line(18_000, fps=30.0)
    rows = movement(line, tracks=2, noise_px=1.0)
    html = video_page(replace(material(frame_line(1)), player=player_of(line, rows)))
    assert len(html) < 5_000_000
    page = opened(browser, tmp_path, html)
    page.run("posebatch.seek(599)")
    assert page.run("return posebatch.frame") == 17_970


PLAYER = """<video src="clip.mp4" muted></video><script>
const video = document.querySelector("video");
video.onended = () => document.title = "ended";
video.onerror = () => document.title = "error " + video.error.message;
video.oncanplaythrough = () => video.play();
</script>"""


def test_mp4_preview_plays_to_its_end(browser, tmp_path):
    frames = [AnnotatedFrame(number / 25, np.full((90, 161, 3), 3 * number, np.uint8)) for number in range(50)]
    with (tmp_path / "clip.mp4").open("wb") as file, writer_for("mp4", len(frames), Fraction(1, 25)) as writer:
        for frame in frames:
            writer.add(frame)
        assert writer.finish(file) == len(frames)
    opened(browser, tmp_path, PLAYER, ready="document.title")
    assert browser.run("return document.title") == "ended"
    shown = browser.run("return [video.duration, video.videoWidth, video.getVideoPlaybackQuality().totalVideoFrames]")
    assert shown == [2, 162, 50], "an odd side is widened to an even one"
