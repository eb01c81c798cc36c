"""The settings of which videos a run processes, and of how failures count."""

from __future__ import annotations

from dataclasses import dataclass

from posebatch.core.options import option


@dataclass(frozen=True)
class SelectionSettings:
    """Which videos are processed, and how videos are treated that were published or failed before."""

    include: tuple[str, ...] = option((), "process only inputs whose path matches; repeatable", metavar="GLOB")
    exclude: tuple[str, ...] = option((), "skip inputs whose path matches; repeatable", metavar="GLOB")
    archives: bool = option(
        False, "take the videos inside .zip and .tar files, too; an archive that is named itself is always opened"
    )
    limit: int | None = option(None, "process at most N videos in this run", low=1, metavar="N")
    on_existing: str = option(
        "skip", "what to do with a video that is published and up to date", choices=("skip", "overwrite", "error")
    )
    retry_failed: bool = option(False, "process videos again that failed before")
    max_attempts: int = option(
        3, "maximum attempts per video, over all runs, when workers die or storage fails", low=1, metavar="N"
    )
    fail_on: str = option(
        "new",
        "failed and partial videos for which a finished run exits with code 3; new: those of this run, any: also those "
        "of earlier runs",
        choices=("new", "any", "never"),
    )
    max_failed_share: float | None = option(
        None,
        "exit with code 3 only if more than this share of the videos failed or is partial, 0 to 1; with --fail-on "
        "never, too",
        low=0,
        high=1,
        metavar="S",
    )
    wait: bool = option(False, "if another run holds the output, wait for its end instead of exiting with code 2")
    endpoint_url: str | None = option(None, "URL of an S3-compatible store to use instead of AWS", metavar="URL")
    request_payer: str | None = option(
        None, "agree to pay for reading inputs from buckets whose requester pays", choices=("requester",)
    )
