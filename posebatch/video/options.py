"""Options of decoding: which frames, in which form, and by which decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from posebatch.core.execution_settings import LimitSettings
from posebatch.core.settings import SamplingSettings
from posebatch.video.container import do_nothing
from posebatch.video.frame_images import RGB, FrameFormat
from posebatch.video.limits import DEFAULT_LIMITS


@dataclass(frozen=True)
class DecodeOptions:
    """How a segment is decoded."""

    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    """Which frames are yielded."""
    batch_frames: int = 16
    """Most frames in one batch."""
    frame_format: FrameFormat = RGB
    """The form of the images in a batch."""
    threads: int = 1
    """CPU threads of the decoder."""
    on_gpu: bool = False
    """Decode by NVDEC, and on the CPU where NVDEC fails. NVDEC does not report all damage."""
    group_frames: int = 1
    """Persons are followed within groups of this many frames: those with equal ``frame_index // group_frames``. A
    segment that begins inside a group first yields the group's earlier frames, in batches marked ``lead_in``."""
    limits: LimitSettings = DEFAULT_LIMITS
    on_frame: Callable[[], None] = do_nothing
    """Called after each decoded frame, sampled or not, as a heartbeat."""
