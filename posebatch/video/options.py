"""Options of decoding: which frames, in what form, and by which means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from posebatch.core.settings import LimitSettings, SamplingSettings
from posebatch.video.container import ignore
from posebatch.video.frame_images import RGB, FrameFormat
from posebatch.video.limits import DEFAULT_LIMITS


@dataclass(frozen=True)
class DecodeOptions:
    """How a segment is decoded."""

    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    batch_frames: int = 16
    """Most frames in one batch."""
    threads: int = 1
    """CPU threads of the decoder."""
    packing: FrameFormat = RGB
    on_gpu: bool = False
    """Decode by NVDEC, and on the CPU what that cannot. A GPU does not tell of all damage."""
    detect_every: int = 1
    """Persons are followed within groups of so many frames, ``frame_index // detect_every``. A segment that begins
    amid a group gives the group's earlier wanted frames first, in batches marked ``lead_in``."""
    limits: LimitSettings = DEFAULT_LIMITS
    on_frame: Callable[[], None] = ignore
    """Called after each decoded frame, as a sign of life."""
