"""The page of a run: what it did, what is new, what is wrong, how good it is, and how fast it went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from posebatch.core.records import StageSeconds
from posebatch.report.pages.addresses import VIDEO_PAGE, relative_address, run_page_key
from posebatch.report.pages.advice import advice_for
from posebatch.report.pages.packing import packed_json
from posebatch.report.pages.run_differences import Differences, grade_counts
from posebatch.report.pages.run_facts import RunFacts, VideoLine
from posebatch.report.pages.template import filled
from posebatch.report.pages.words import duration_words, video_name

WALL_VIDEOS: Final = 200
"""Videos on the wall: more pictures would make the page too large for an attachment."""


PROBLEMS_LISTED: Final = 100
"""Failed and partial videos that are listed with reason and advice."""


WORST_LISTED: Final = 10


TABLE_VIDEOS: Final = 100_000
"""Videos in the table that can be searched."""


@dataclass(frozen=True)
class RunMaterial:
    """What the page of a run is made of."""

    root: str
    """The address of the output."""
    facts: RunFacts
    differences: Differences | None
    """None for the first run of an output."""
    paged: frozenset[str]
    """Output paths of the videos that have a page."""
    thumbnails: Mapping[str, str]
    """``data:`` addresses of pictures, by output path."""
    reasons: Mapping[str, str]
    """Why the main person of a video has its grade, by output path, for `worst_videos`."""


def run_page(material: RunMaterial) -> str:
    """The page as HTML."""
    facts, lines = material.facts, material.facts.lines
    key = run_page_key(facts.run_id)
    problems = listed_problems(facts)
    published = [line for line in lines if line.status != "failed"]
    pictured = sorted(published, key=lambda line: line.output_path not in material.thumbnails)
    wall = pictured[:WALL_VIDEOS]
    return filled(
        "run.html.j2",
        "run.js",
        root=material.root,
        run_id=facts.run_id,
        started=started_text(facts.run_id),
        state=state_text(facts.summary),
        tiles=tiles(facts),
        warnings=[*facts.summary.get("warnings", ()), *_cut_off(facts.summary)],
        wall=[_wall_line(line, material, key) for line in wall],
        wall_left_out=len(published) - len(wall),
        pictures=[material.thumbnails.get(line.output_path or "", "") for line in wall],
        problems=problems[:PROBLEMS_LISTED],
        problems_left_out=len(problems) - min(len(problems), PROBLEMS_LISTED),
        grades=histogram(lines),
        worst=[_worst_line(line, material, key) for line in worst_videos(lines)],
        stages=stage_shares(facts.seconds),
        speed=speed_words(facts),
        devices=facts.devices,
        differences=material.differences,
        before_address=relative_address(key, run_page_key(material.differences.before)) if material.differences else "",
        table=packed_json([_table_line(line, material) for line in lines[:TABLE_VIDEOS]]),
        table_count=min(len(lines), TABLE_VIDEOS),
        table_left_out=len(lines) - min(len(lines), TABLE_VIDEOS),
        unpaged=sum(line.output_path not in material.paged for line in published),
        settings_text=facts.settings_text,
    )


def started_text(run_id: str) -> str:
    """When a run began, from its id; the id itself if it is none of ours.

    >>> started_text("20261129T180127Z-1310")
    '2026-11-29 18:01 UTC'
    """
    day, _, time = run_id.partition("T")
    if not (day.isdigit() and len(day) == 8 and time[:6].isdigit()):
        return run_id
    return f"{day[:4]}-{day[4:6]}-{day[6:]} {time[:2]}:{time[2:4]} UTC"


def state_text(summary: Mapping[str, Any]) -> tuple[str, bool]:
    """How the run ended in words, and whether that is bad."""
    if not summary:
        return "This run has no summary: it was killed, or is still going on.", True
    if not summary.get("finished"):
        left = summary.get("videos_left", 0)
        return f"This run was stopped before its end; {left} videos were left. Run the same command again.", True
    code = summary.get("exit_code")
    if code:
        return f"Finished with exit code {code}: some videos failed or are partial.", True
    return "Finished without complaints." if not summary.get("complaints") else "Finished.", False


def tiles(facts: RunFacts) -> list[dict[str, Any]]:
    """The figures at the top of the page. Those of zero that say nothing are left out."""
    summary = facts.summary
    kept = (
        ("published", "new", False),
        ("derived", "tracks derived again", False),
        ("up_to_date", "up to date", False),
        ("failed", "failed", True),
        ("quarantined", "failed before", True),
        ("partial", "partial", True),
        ("videos_left", "left undone", True),
        ("frames", "frames", False),
        ("persons", "persons in all frames", False),
    )
    found = [
        {"value": summary.get(name, 0), "words": words, "bad": bad}
        for name, words, bad in kept
        if summary.get(name) or (name == "published" and summary)
    ]
    if summary.get("video_seconds"):
        found.append({"value": duration_words(summary["video_seconds"]), "words": "of video", "bad": False})
    if summary.get("elapsed_s"):
        found.append({"value": duration_words(summary["elapsed_s"]), "words": "in all", "bad": False})
    return found


def listed_problems(facts: RunFacts) -> list[dict[str, str]]:
    """Failed and partial videos: those that this run met, then those of earlier runs."""
    problems = [
        {"video": line.video, "status": line.status, "reason": line.error or "", "advice": advice_for(line.error_kind)}
        for line in facts.lines
        if line.status != "ok"
    ]
    known = {problem["video"] for problem in problems}
    for complaint in facts.summary.get("complaints", ()):
        if complaint["video"] not in known:
            kind = complaint["reason"].partition(":")[0]
            problems.append({**complaint, "advice": advice_for(kind)})
    return problems


def histogram(lines: tuple[VideoLine, ...]) -> list[dict[str, Any]]:
    """The grades of the videos of a run; empty if nothing was published."""
    counts = grade_counts(lines)
    most = max(counts.values())
    return [{"grade": grade, "count": count, "share": count / most} for grade, count in counts.items()] if most else []


def worst_videos(lines: tuple[VideoLine, ...]) -> list[VideoLine]:
    """The published videos with the worst grades, at most `WORST_LISTED`; not those graded A."""
    graded = [line for line in lines if line.status != "failed" and line.grade not in (None, "A")]
    return sorted(graded, key=lambda line: (line.grade or "", line.status == "partial"), reverse=True)[:WORST_LISTED]


def stage_shares(seconds: StageSeconds) -> list[dict[str, Any]]:
    """How the workers' time divides, in shares of 1; empty if nothing was computed."""
    known = seconds.detect + seconds.pose + seconds.wait
    total = max(seconds.total, known)
    if not total:
        return []
    parts = (
        ("detector", seconds.detect),
        ("pose network", seconds.pose),
        ("waiting for the decoder", seconds.wait),
        ("other", total - known),
    )
    return [{"name": name, "seconds": duration_words(part), "share": part / total} for name, part in parts]


def speed_words(facts: RunFacts) -> list[str]:
    """What the figures of time say, a sentence each."""
    summary, seconds = facts.summary, facts.seconds
    words = []
    rate, elapsed, start = summary.get("frames_per_second"), summary.get("elapsed_s"), summary.get("start_s")
    if rate:
        words.append(f"{rate:.1f} frames/s once all workers ran.")
        busy = seconds.total - seconds.wait
        if seconds.wait and busy > 0:
            best = rate * seconds.total / busy
            words.append(f"If the networks had never waited for the decoder, {best:.1f} frames/s were possible.")
    if elapsed and start:
        words.append(f"{duration_words(start)} of {duration_words(elapsed)} passed before the first worker was ready.")
    if seconds.decode:
        words.append(f"Decoding took {duration_words(seconds.decode)} beside the networks.")
    return words


def _cut_off(summary: Mapping[str, Any]) -> list[str]:
    cut = summary.get("frames_cut")
    return [f"{cut} frames hold more persons than --max-persons; only the best are in the tables."] if cut else []


def _wall_line(line: VideoLine, material: RunMaterial, key: str) -> dict[str, Any]:
    seconds = "" if line.duration_s is None else duration_words(line.duration_s)
    return {
        "name": video_name(line.video),
        "folder": (line.output_path or "").rpartition("/")[0],
        "grade": line.grade,
        "status": line.status,
        "words": seconds,
        "address": _page_address(line, material, key),
    }


def _worst_line(line: VideoLine, material: RunMaterial, key: str) -> dict[str, Any]:
    return {
        "video": line.video,
        "grade": line.grade,
        "reason": material.reasons.get(line.output_path or "", ""),
        "address": _page_address(line, material, key),
    }


def _page_address(line: VideoLine, material: RunMaterial, key: str) -> str:
    if line.output_path is None or line.output_path not in material.paged:
        return ""
    return relative_address(key, VIDEO_PAGE.key(line.output_path))


def _table_line(line: VideoLine, material: RunMaterial) -> list[Any]:
    path = line.output_path
    has_page = path is not None and path in material.paged
    return [
        *(line.output_path or line.video, line.status, line.grade or "", line.frames, line.persons),
        *(line.tracks, VIDEO_PAGE.key(path) if has_page and path is not None else ""),
    ]
