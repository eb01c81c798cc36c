"""NVDEC: an NVIDIA GPU's own decoder, which leaves the frames in its memory."""

from __future__ import annotations

import sys
from typing import Final

import av.error
from av.codec import Codec
from av.codec.hwaccel import HWAccel

from posebatch.core.errors import SettingsError

_PROBED_CODEC: Final = "h264"
"""What every NVDEC decodes."""


_said: set[str] = set()


def nvdec() -> HWAccel:
    """What makes PyAV decode on the GPU and nowhere else."""
    return HWAccel("cuda", allow_software_fallback=False, is_hw_owned=True)


def use_nvdec(decoder: str, device: str) -> bool:
    """Whether frames are decoded on the GPU, by ``--decoder`` and the networks' device.

    ``auto`` says so when a GPU cannot decode. Raises `SettingsError` when ``nvdec`` is asked for and cannot be had.
    """
    if decoder == "cpu" or (decoder == "auto" and device != "cuda"):
        return False
    problem = _problem() if device == "cuda" else "the networks run on the CPU, and frames stay where they are decoded"
    if problem is None:
        return True
    if decoder == "nvdec":
        raise SettingsError(f"--decoder nvdec: {problem}; use --decoder auto or cpu")
    say_once("machine", f"videos are decoded on the CPU: {problem}")
    return False


def say_once(about: str, line: str) -> None:
    """One line about each thing in the life of a process."""
    if about not in _said:
        _said.add(about)
        print(line, file=sys.stderr)


def _problem() -> str | None:
    try:
        nvdec().create(Codec(_PROBED_CODEC, "r"))
    except (av.error.FFmpegError, NotImplementedError, RuntimeError) as error:
        return f"FFmpeg cannot open NVDEC here ({error})"
    return None
