"""Where pages lie in an output, and relative addresses between them."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from posebatch.dataset.layout import Artifact

VIDEO_PAGE: Final = Artifact("report", "reports", "html", "motion")
"""The page of a video. It is not among `ARTIFACTS`: no commit record vouches for it, and it is rewritten at will."""

MOST_PAGES: Final = 200
"""Pages of videos that a report makes unless more are asked for: each takes about half a second."""


def run_page_key(run_id: str) -> str:
    """Key of the page of a run."""
    return f"runs/{run_id}/report.html"


def relative_address(key: str, to: str) -> str:
    """The relative address that leads from the page ``key`` to the object ``to`` of the same output.

    >>> relative_address("reports/ski/a.mp4.html", "poses/ski/50 %.mp4.parquet")
    '../../poses/ski/50%20%25.mp4.parquet'
    """
    return "../" * key.count("/") + quote(to)
