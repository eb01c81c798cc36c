"""Timing of repeated calls."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def seconds_per_image(run: Callable[[], int], seconds: float) -> float:
    """Seconds per image of ``run``, which returns its number of images: one call to warm up, then ``seconds`` long."""
    run()
    images, started = 0, time.perf_counter()
    while not images or time.perf_counter() < started + seconds:
        images += run()
    return (time.perf_counter() - started) / images


def wait_for(device: str) -> None:
    """Wait until the device has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()
