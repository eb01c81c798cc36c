"""What the machine can do at most: matrix products of a number format."""

from __future__ import annotations

import time
from typing import Final

import torch

_SIZE: Final = {"cpu": 1024, "cuda": 8192}


def gemm_gflops_per_s(device: str, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Operations of square matrix products, a multiplication and an addition counted as two, on torch's threads."""
    size = _SIZE[device]
    a = torch.randn(size, size, device=device).to(dtype)
    out = torch.empty_like(a)
    torch.mm(a, a, out=out)
    wait_for(device)
    products, started = 0, time.perf_counter()
    while not products or time.perf_counter() < started + seconds:
        for _ in range(1 if device == "cpu" else 20):
            torch.mm(a, a, out=out)
            products += 1
        wait_for(device)
    return 2 * size**3 * products / (time.perf_counter() - started) / 1e9


def gemm_type(precision: str, device: str) -> torch.dtype:
    """The number format whose products a precision is held against.

    torch has no int8 product to compare with: int8, and whatever else is no format of torch's, is held against the
    faster of fp32 and bf16.
    """
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision in named:
        return named[precision]
    return max((torch.float32, torch.bfloat16), key=lambda dtype: gemm_gflops_per_s(device, dtype, 0.3))


def wait_for(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
