"""How long something takes that is done over and over."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def seconds_per_image(run: Callable[[], int], seconds: float) -> float:
    """Seconds for one image of a call that says how many it did; called once before, then for about ``seconds``."""
    run()
    images, started = 0, time.perf_counter()
    while not images or time.perf_counter() < started + seconds:
        images += run()
    return (time.perf_counter() - started) / images


def wait_for(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
