"""Read what the page of a run says: its folder, the run before, and the videos that it worked on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from posebatch.core.errors import InputError, ObjectNotFoundError
from posebatch.core.records import StageSeconds, VideoRecord
from posebatch.dataset.layout import output_path_of
from posebatch.dataset.tables.records import records_of_run
from posebatch.storage.store import Store

RUNS_NAMED: Final = 5
"""Runs that the message about an unknown one names."""


@dataclass(frozen=True)
class VideoLine:
    """What the page of a run says about a video; small, because there may be 100,000 of them."""

    video: str
    """Its address."""
    output_path: str | None
    """None if it has no tables."""
    status: str
    grade: str | None
    frames: int
    persons: int
    tracks: int | None
    duration_s: float | None
    error_kind: str | None
    error: str | None

    @classmethod
    def of(cls, record: VideoRecord) -> VideoLine:
        """The line of a commit record."""
        paths = (output_path_of(published.key) for published in record.objects)
        return cls(
            record.video,
            next((path for path in paths if path is not None), None),
            record.status,
            record.grade,
            record.frames_processed,
            record.persons,
            record.tracks,
            None if record.info is None else record.info.duration_s,
            record.error_kind,
            record.error,
        )


@dataclass(frozen=True)
class RunFacts:
    """One run, as its folder tells it."""

    run_id: str
    summary: Mapping[str, Any]
    """The content of ``summary.json``; empty for a run that was killed, or that goes on."""
    settings_text: str
    """The content of ``settings.yaml``."""
    lines: tuple[VideoLine, ...]
    """The videos that it published, derived, or recorded as failed."""
    seconds: StageSeconds
    """The sum over these videos."""
    devices: tuple[str, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """Its settings by name; empty if the file is missing or damaged."""
        try:
            found = yaml.safe_load(self.settings_text)
        except yaml.YAMLError:
            return {}
        return found if isinstance(found, dict) else {}


def run_ids(store: Store) -> list[str]:
    """All runs of an output, in the order of time."""
    files = ("/settings.yaml", "/summary.json")
    keys = (listed.key for listed in store.list("runs/") if listed.key.endswith(files))
    return sorted({key.split("/")[1] for key in keys if key.count("/") == 2})


def chosen_run(store: Store, run_id: str | None) -> tuple[str, str | None]:
    """The run ``run_id``, by default the last one, and the one before it. Raises `InputError` if there is none."""
    known = run_ids(store)
    if not known:
        raise InputError(f"{store.uri('runs')}: no run, so there is nothing to report; is it an output of posebatch?")
    wanted = known[-1] if run_id is None else run_id
    if wanted not in known:
        newest = ", ".join(known[: -RUNS_NAMED - 1 : -1])
        raise InputError(f"--run {wanted}: {store.uri('runs')} has no such run; the newest are {newest}")
    position = known.index(wanted)
    return wanted, known[position - 1] if position else None


def read_run(store: Store, run_id: str) -> RunFacts:
    """The facts of a run. Files that are missing leave their part empty: a run may have been killed."""
    folder = f"runs/{run_id}"
    lines, seconds, devices = [], StageSeconds(), set()
    for record in records_of_run(content) if (content := _read(store, f"{folder}/videos.parquet")) else ():
        lines.append(VideoLine.of(record))
        seconds += record.seconds
        devices.add(record.device)
    summary = _parsed(_read(store, f"{folder}/summary.json"))
    settings = _read(store, f"{folder}/settings.yaml").decode(errors="replace")
    return RunFacts(run_id, summary, settings, tuple(lines), seconds, tuple(sorted(devices - {""})))


def _read(store: Store, key: str) -> bytes:
    try:
        return store.read(key)
    except ObjectNotFoundError:
        return b""


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
