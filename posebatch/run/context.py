"""The context of a run: settings and identities that every worker needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from posebatch.core.fingerprints import data_fingerprint, preview_fingerprint
from posebatch.core.settings import Settings
from posebatch.core.videos import SourceVideo
from posebatch.dataset.staging import StagingArea
from posebatch.storage.open import open_store
from posebatch.storage.store import Store


@dataclass(frozen=True)
class RunContext:
    """What every part of a run needs to know; shipped to each worker once."""

    run_id: str
    settings: Settings
    output: str
    """Root of the output, local path or ``s3://``."""
    detector: str
    """Identity of the detector: its name and the sha256 of its weights."""
    pose: str
    """Identity of the pose network."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Variables that processes elsewhere need: how to reach S3, credentials among them, so never to be shown."""

    @property
    def endpoint_url(self) -> str | None:
        """The S3-compatible store to talk to."""
        return self.settings.selection.endpoint_url

    def store(self) -> Store:
        """The output."""
        return open_store(self.output, self.endpoint_url)

    def staging(self, video: SourceVideo) -> StagingArea:
        """The staging area of a video in this run."""
        return StagingArea.of(self.store(), video, self.data_fingerprint)

    @cached_property
    def data_fingerprint(self) -> str:
        """Identifies what shapes poses and frames, besides the source."""
        return data_fingerprint(self.settings, self.detector, self.pose)

    @cached_property
    def preview_fingerprint(self) -> str | None:
        """Identifies what shapes a preview; None when none is wanted."""
        return preview_fingerprint(self.settings) if self.settings.preview.wanted else None
