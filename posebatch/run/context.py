"""The context of a run: settings and identities that every worker needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from posebatch.core.fingerprints import data_fingerprint, motion_fingerprint, preview_fingerprint
from posebatch.core.settings import Settings
from posebatch.core.similarity import OKS_NMS_OFF
from posebatch.core.videos import SourceVideo
from posebatch.dataset.layout import PREVIEWS
from posebatch.dataset.staging import StagingArea
from posebatch.storage.open import open_store
from posebatch.storage.store import Store


@dataclass(frozen=True)
class RunContext:
    """The settings and identities of a run; each worker receives them once."""

    run_id: str
    settings: Settings
    output: str
    """Root of the output: a local path or an ``s3://`` address."""
    detector: str
    """Identity of the detector: its name and the sha256 of its weights."""
    pose: str
    """Identity of the pose network."""
    only_derives: bool = False
    """Whether the run has no networks: it works on published tables alone, and never replaces or fails a video."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Environment variables for processes on other machines. They hold S3 credentials and must never be shown."""

    @property
    def endpoint_url(self) -> str | None:
        """Address of an S3-compatible store; None for AWS."""
        return self.settings.selection.endpoint_url

    def store(self) -> Store:
        """Open the output."""
        return open_store(self.output, self.endpoint_url)

    def staging(self, video: SourceVideo) -> StagingArea:
        """The staging area of a video, for the settings of this run."""
        return StagingArea.of(self.store(), video, self.data_fingerprint)

    @cached_property
    def data_fingerprint(self) -> str:
        """Identifies everything besides the source that determines poses and frames."""
        return data_fingerprint(self.settings, self.detector, self.pose)

    @cached_property
    def fingerprint_without_oks_nms(self) -> str:
        """`data_fingerprint` of the same settings with OKS-NMS off, the default of earlier versions."""
        estimator = replace(self.settings.estimator, oks_nms_thr=OKS_NMS_OFF)
        return data_fingerprint(replace(self.settings, estimator=estimator), self.detector, self.pose)

    @property
    def keeps_rows_without_oks_nms(self) -> bool:
        """Whether videos published before OKS-NMS became the default count as up to date: nobody chose a threshold."""
        return self.settings.estimator.oks_nms_thr is None

    @cached_property
    def motion_fingerprint(self) -> str | None:
        """Identifies everything besides poses and frames that determines tracks and motion; None without tracks."""
        return motion_fingerprint(self.settings) if self.settings.motion.track else None

    @cached_property
    def preview_fingerprints(self) -> Mapping[str, str]:
        """Identifies everything besides the tables that determines a preview, for each kind that is wanted."""
        formats = self.settings.preview.formats
        return {PREVIEWS[form].kind: preview_fingerprint(self.settings, form) for form in formats}
