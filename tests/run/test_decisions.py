"""The decision about each video."""

from dataclasses import replace

import pytest

from posebatch.core.presets import PRESETS
from posebatch.core.records import PublishedObject, VideoRecord
from posebatch.core.settings import settings_from
from posebatch.core.videos import SourceVideo
from posebatch.models.weights.names import resolve
from posebatch.run.context import RunContext
from posebatch.run.planning.decisions import Action, CommitSummary, decide, decide_derivation
from posebatch.run.planning.network_changes import name_changes

SMALL = PRESETS["fast"][1]
VIDEO = SourceVideo("/in/a.mp4", "a.mp4", "etag-1", 10, 1.0)


def context(**chosen) -> RunContext:
    return RunContext("run-1", settings_from({"track": False, **chosen}), "/out", "d@1", "p@1")


PLAIN = context()
GIF = context(preview="gif")
RECORD = VideoRecord(
    video=VIDEO.uri,
    etag="etag-1",
    size_bytes=10,
    last_modified=1.0,
    status="ok",
    settings_fingerprint=PLAIN.data_fingerprint,
    run_id="run-0",
    posebatch_version="0",
    frames_processed=5,
)
FAILED = replace(RECORD, status="failed", error_kind="damaged", error="no frame", frames_processed=0)


def preview(fingerprint: str | None) -> PublishedObject:
    return PublishedObject("preview", "previews/a.mp4.gif", 5, 99, str(fingerprint))


WITH_GIF = replace(RECORD, objects=(preview(GIF.preview_fingerprints["preview"]),))
NO_GIF = replace(RECORD, error_kind="preview", error="cannot be drawn")


@pytest.mark.parametrize(
    ("record", "chosen", "action", "reason"),
    [
        pytest.param(None, {}, Action.COMPUTE, "new", id="no record"),
        pytest.param(None, {"preview": "gif"}, Action.COMPUTE, "new", id="no record, preview wanted"),
        pytest.param(RECORD, {}, Action.DONE, "up to date", id="done"),
        pytest.param(replace(RECORD, status="partial"), {}, Action.DONE, "up to date", id="partial is done"),
        pytest.param(RECORD, {"retry_failed": True}, Action.DONE, "up to date", id="done, retry does not apply"),
        pytest.param(RECORD, {"workers": 7, "segment_seconds": 3}, Action.DONE, "up to date", id="other workers"),
        pytest.param(
            RECORD, {"on_existing": "overwrite"}, Action.COMPUTE, "up to date, done again as asked", id="overwrite"
        ),
        pytest.param(replace(RECORD, etag="etag-0"), {}, Action.COMPUTE, "the source has changed", id="other source"),
        pytest.param(RECORD, {"stride": 2}, Action.COMPUTE, "settings or weights have changed", id="other settings"),
        pytest.param(
            WITH_GIF, {"stride": 2, "preview": "gif"}, Action.COMPUTE, "settings or weights", id="settings, not preview"
        ),
        pytest.param(FAILED, {}, Action.QUARANTINED, "damaged: no frame", id="failed"),
        pytest.param(FAILED, {"stride": 2}, Action.QUARANTINED, "damaged: no frame", id="failed, other settings"),
        pytest.param(FAILED, {"on_existing": "overwrite"}, Action.QUARANTINED, "damaged", id="failed, overwrite"),
        pytest.param(FAILED, {"preview": "gif"}, Action.QUARANTINED, "damaged", id="failed, preview wanted"),
        pytest.param(
            FAILED, {"retry_failed": True}, Action.COMPUTE, "failed before (damaged), tried again", id="retry"
        ),
        pytest.param(
            replace(FAILED, etag="etag-0"), {}, Action.COMPUTE, "the source has changed", id="failed, other source"
        ),
        pytest.param(RECORD, {"preview": "gif"}, Action.PREVIEW, "the preview is not", id="no preview yet"),
        pytest.param(RECORD, {"preview": "none"}, Action.DONE, "up to date", id="no preview wanted"),
        pytest.param(WITH_GIF, {"preview": "gif"}, Action.DONE, "up to date", id="preview there"),
        pytest.param(WITH_GIF, {}, Action.DONE, "up to date", id="preview there, none wanted"),
        pytest.param(
            WITH_GIF, {"preview": "gif", "preview_scale": 0.5}, Action.PREVIEW, "preview is not", id="other scale"
        ),
        pytest.param(
            WITH_GIF, {"preview": "gif", "on_existing": "overwrite"}, Action.COMPUTE, "as asked", id="both again"
        ),
        pytest.param(NO_GIF, {"preview": "gif"}, Action.DONE, "up to date", id="preview failed before"),
        pytest.param(
            NO_GIF, {"preview": "gif", "retry_failed": True}, Action.PREVIEW, "preview is not", id="retry preview"
        ),
        pytest.param(
            replace(RECORD, frames_processed=0), {"preview": "gif"}, Action.DONE, "up to date", id="nothing to draw"
        ),
    ],
)
def test_decide_follows_record_and_settings(record, chosen, action, reason):
    decision = decide(VIDEO, record and CommitSummary.of(record), context(**chosen))
    assert decision.action is action
    assert reason in decision.reason


def test_decide_recomputes_for_other_weights():
    for changed in (replace(PLAIN, detector="d@2"), replace(PLAIN, pose="p@2")):
        assert decide(VIDEO, CommitSummary.of(RECORD), changed).action is Action.COMPUTE


EARLIER = replace(RECORD, settings_fingerprint=context(oks_nms_thr=1).data_fingerprint)
"""Published with the defaults of a version without OKS-NMS."""


@pytest.mark.parametrize(
    ("record", "chosen", "action", "reason"),
    [
        pytest.param(EARLIER, {}, Action.DONE, "--oks-nms-thr 0.7 computes it again", id="kept"),
        pytest.param(EARLIER, {"oks_nms_thr": 1}, Action.DONE, "up to date", id="its own settings"),
        pytest.param(EARLIER, {"oks_nms_thr": 0.7}, Action.COMPUTE, "settings or weights", id="the default, given"),
        pytest.param(EARLIER, {"oks_nms_thr": 0.9}, Action.COMPUTE, "settings or weights", id="another one"),
        pytest.param(EARLIER, {"stride": 2}, Action.COMPUTE, "settings or weights", id="other settings, too"),
        pytest.param(EARLIER, {"on_existing": "overwrite"}, Action.COMPUTE, "as asked", id="overwrite"),
        pytest.param(EARLIER, {"preview": "gif"}, Action.PREVIEW, "the preview is not", id="preview alone"),
        pytest.param(replace(EARLIER, etag="etag-0"), {}, Action.COMPUTE, "source has changed", id="other source"),
        pytest.param(RECORD, {"oks_nms_thr": 0.7}, Action.DONE, "up to date", id="today's default, given"),
        pytest.param(RECORD, {"oks_nms_thr": 1}, Action.COMPUTE, "settings or weights", id="today's rows, then off"),
    ],
)
def test_decide_keeps_rows_from_before_oks_nms(record, chosen, action, reason):
    decision = decide(VIDEO, CommitSummary.of(record), context(**chosen))
    assert decision.action is action
    assert reason in decision.reason


def test_name_changes_says_how_to_keep_rows_from_before_oks_nms():
    text = name_changes(EARLIER, context(oks_nms_thr=0.9))
    assert text == "OKS-NMS was off, is 0.9, without --oks-nms-thr its rows stay"
    assert name_changes(RECORD, context(oks_nms_thr=0.9)) is None


def test_decide_ignores_run_id_and_output():
    assert (
        decide(VIDEO, CommitSummary.of(RECORD), replace(PLAIN, run_id="run-9", output="/elsewhere")).action
        is Action.DONE
    )


def test_context_has_fingerprints():
    assert PLAIN.preview_fingerprints == {}
    assert set(GIF.preview_fingerprints) == {"preview"}
    assert GIF.data_fingerprint == PLAIN.data_fingerprint
    assert context(endpoint_url="http://x").endpoint_url == "http://x"


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [
        (("d@11112222333", "p@1"), ("d@11112222333", "p@1"), None),
        (("", ""), ("d@1", "p@1"), None),  # the video failed before any network saw it
        (("d@1", "p@1111222233"), ("d@1", "q@5"), "pose was p@11112222, is q@5, --pose p keeps it"),
        (("d@1", "p@1"), ("d@1", "p@5"), "pose was p@1, is p@5"),
        (
            ("d@1", "p@1"),
            ("e@2", "q@5"),
            "detector was d@1, is e@2, --detector d keeps it; pose was p@1, is q@5, --pose p keeps it",
        ),
        (
            ("d@1", f"{SMALL}@3ced895b"),  # before its scores were calibrated
            ("d@1", "q@5"),
            f"pose was {SMALL}@3ced895b, is q@5, the package has other weights of {SMALL} now",
        ),
        (
            ("d@1", resolve("pose", SMALL).identity),
            ("d@1", "q@5"),
            f"pose was {resolve('pose', SMALL).identity[:-56]}, is q@5, --pose {SMALL} keeps it",
        ),
        (
            ("d@1", "simplebaseline_mobilenet_v2_256x192@d6bbda92"),
            ("d@1", "q@5"),
            "pose was simplebaseline_mobilenet_v2_256x192@d6bbda92, is q@5, the former weights are not in the package "
            "any more",
        ),
    ],
)
def test_name_changes_says_how_to_keep_the_former_ones(before, now, text):
    record = replace(RECORD, detector=before[0], pose=before[1])
    wanted = RunContext("run", settings_from({}), "out", *now)
    assert name_changes(record, wanted) == text


TRACKED = RunContext("run-1", settings_from({}), "/out", "d@1", "p@1")


def with_motion(*fingerprints: str | None, size_bytes: int = 9) -> VideoRecord:
    """A record with poses of this size, and with motion of these fingerprints."""
    poses = PublishedObject("poses", "poses/a.mp4.parquet", 5, size_bytes, RECORD.settings_fingerprint)
    motion = [PublishedObject("motion", "motion/a.mp4.parquet", 5, 99, str(each)) for each in fingerprints]
    return replace(RECORD, objects=(poses, *motion))


CURRENT = TRACKED.motion_fingerprint
DERIVATIONS = [
    # record, settings, what `run` does, what `derive` does
    pytest.param(with_motion(), {}, Action.DERIVE, Action.DERIVE, id="no motion"),
    pytest.param(with_motion(CURRENT), {}, Action.DONE, Action.DONE, id="current"),
    pytest.param(with_motion("0"), {}, Action.DERIVE, Action.DERIVE, id="other motion"),
    pytest.param(with_motion(CURRENT), {"cutoff_hz": 3.0}, Action.DERIVE, Action.DERIVE, id="other cutoff"),
    pytest.param(with_motion(CURRENT), {"kpt_thr": 0.3}, Action.COMPUTE, Action.DERIVE, id="other threshold"),
    pytest.param(with_motion(CURRENT), {"stride": 2}, Action.COMPUTE, Action.DONE, id="other rows"),
    pytest.param(with_motion(CURRENT), {"preview": "gif"}, Action.PREVIEW, Action.PREVIEW, id="no preview"),
    pytest.param(with_motion("0"), {"preview": "gif"}, Action.DERIVE, Action.DERIVE, id="neither"),
    pytest.param(with_motion(), {"track": False}, Action.DONE, Action.DONE, id="untracked as wanted"),
    pytest.param(with_motion(CURRENT), {"track": False}, Action.DONE, Action.DERIVE, id="tracks not wanted"),
    pytest.param(with_motion(size_bytes=-1), {"track": False}, Action.DERIVE, Action.DERIVE, id="killed before"),
    pytest.param(FAILED, {}, Action.QUARANTINED, Action.QUARANTINED, id="failed"),
]


@pytest.mark.parametrize(("record", "chosen", "run", "derive"), DERIVATIONS)
def test_decide_derives_what_only_lacks_motion(record: VideoRecord, chosen: dict, run: Action, derive: Action):
    wanted = replace(TRACKED, settings=settings_from(chosen))
    assert decide(VIDEO, CommitSummary.of(record), wanted).action is run
    assert decide_derivation(CommitSummary.of(record), wanted).action is derive


@pytest.mark.parametrize(
    ("record", "chosen", "action", "reason"),
    [
        pytest.param(None, {}, Action.COLD, "new; to be restored, stored as GLACIER", id="new"),
        pytest.param(RECORD, {"stride": 2}, Action.COLD, "settings or weights", id="other settings"),
        pytest.param(RECORD, {"preview": "gif"}, Action.COLD, "the preview is not", id="no preview"),
        pytest.param(RECORD, {}, Action.DONE, "up to date", id="done"),
        pytest.param(RECORD, {"track": True}, Action.DERIVE, "tracks and motion are missing", id="derived from tables"),
        pytest.param(FAILED, {}, Action.QUARANTINED, "damaged", id="failed"),
    ],
)
def test_video_in_a_cold_class_is_left_if_its_source_is_needed(record, chosen, action, reason):
    summary = None if record is None else CommitSummary.of(record)
    decision = decide(replace(VIDEO, cold_class="GLACIER"), summary, context(**chosen))
    assert decision.action is action
    assert reason in decision.reason
