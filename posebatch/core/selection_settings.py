"""The settings of which videos a run processes, and of how failures count."""

from __future__ import annotations

import math
from dataclasses import dataclass

from posebatch.core.errors import SettingsError
from posebatch.core.options import option
from posebatch.core.shards import Shard


@dataclass(frozen=True)
class SelectionSettings:
    """Which videos are processed, and how videos are treated that were published or failed before."""

    include: tuple[str, ...] = option((), "process only inputs whose path matches; repeatable", metavar="GLOB")
    exclude: tuple[str, ...] = option((), "skip inputs whose path matches; repeatable", metavar="GLOB")
    archives: bool = option(
        False, "take the videos inside .zip and .tar files, too; an archive that is named itself is always opened"
    )
    limit: int | None = option(None, "process at most N videos in this run", low=1, metavar="N")
    shard: str | None = option(
        None,
        "process part K of N of the inputs, K from 1 to N; the path of a video decides its part. The runs of all parts "
        "may work on one output at once",
        metavar="K/N",
    )
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
    fail_above: str | None = option(
        None,
        "exit with code 3 only if more than this share of the videos failed or is partial, as 1% or 0.01; with "
        "--fail-on never, too",
        metavar="SHARE",
    )
    wait: bool = option(False, "if another run holds the output, wait for its end instead of exiting with code 2")
    endpoint_url: str | None = option(None, "URL of an S3-compatible store to use instead of AWS", metavar="URL")
    request_payer: str | None = option(
        None, "agree to pay for reading inputs from buckets whose requester pays", choices=("requester",)
    )

    def __post_init__(self) -> None:
        _ = self.max_failed_share
        _ = self.part

    @property
    def max_failed_share(self) -> float | None:
        """``fail_above`` as a share, 0..1; None if one bad video is too many."""
        return None if self.fail_above is None else _share(self.fail_above)

    @property
    def part(self) -> Shard | None:
        """The shard to process; None: everything."""
        return None if self.shard is None else Shard.parse(self.shard)


def _share(text: str) -> float:
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if percent and 0 <= value <= 100:
        return value / 100
    if not percent and 0 <= value < 1:
        return value
    hint = "; a share is below 1: write 1% or 100%" if value == 1 else ""
    raise SettingsError(f"fail_above must be a share of the videos such as 1% or 0.01, got {text!r}{hint}")
