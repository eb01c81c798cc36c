"""NVDEC: the video decoder of an NVIDIA GPU, which leaves the frames in GPU memory."""

from __future__ import annotations

import sys
from typing import Final

import av.error
from av.codec import Codec
from av.codec.hwaccel import HWAccel

from posebatch.core.errors import SettingsError

_PROBED_CODEC: Final = "h264"
"""Every NVDEC decodes this codec."""


_printed: set[str] = set()


def nvdec() -> HWAccel:
    """The setting that makes PyAV decode on the GPU, and fail where the GPU cannot."""
    return HWAccel("cuda", allow_software_fallback=False, is_hw_owned=True)


def use_nvdec(decoder: str, device: str) -> bool:
    """Whether to decode on the GPU, by ``--decoder`` (``auto``, ``cpu``, ``nvdec``) and the networks' device.

    With ``auto`` a line on stderr says why a GPU cannot decode. Raises `SettingsError` when ``nvdec`` is demanded but
    does not work here.
    """
    if decoder == "cpu" or (decoder == "auto" and device != "cuda"):
        return False
    problem = _problem() if device == "cuda" else "the networks run on the CPU, and frames stay where they are decoded"
    if problem is None:
        return True
    if decoder == "nvdec":
        raise SettingsError(f"--decoder nvdec: {problem}; use --decoder auto or cpu")
    print_once("machine", f"videos are decoded on the CPU: {problem}")
    return False


def print_once(topic: str, line: str) -> None:
    """Print a line on stderr, one for each topic in the life of a process."""
    if topic not in _printed:
        _printed.add(topic)
        print(line, file=sys.stderr)


def _problem() -> str | None:
    """Why NVDEC does not work here; None when it does."""
    try:
        nvdec().create(Codec(_PROBED_CODEC, "r"))
    except (av.error.FFmpegError, NotImplementedError, RuntimeError) as error:
        return f"FFmpeg cannot open NVDEC here ({error})"
    return None
