"""Upper limit of the machine: matrix products in a number format."""

from __future__ import annotations

from typing import Final

import torch

from benchmarks.timing import seconds_per_image, wait_for

_SIZE: Final = {"cpu": 1024, "cuda": 8192}


_PRODUCTS: Final = {"cpu": 1, "cuda": 20}
"""Products between two looks at the clock."""


def gemm_gflops_per_s(device: str, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """GFLOP per second of square matrix products on torch's threads. A multiply-add is two operations."""
    size = _SIZE[device]
    a = torch.randn(size, size, device=device).to(dtype)
    out = torch.empty_like(a)

    def products() -> int:
        for _ in range(_PRODUCTS[device]):
            torch.mm(a, a, out=out)
        wait_for(device)
        return _PRODUCTS[device]

    return 2 * size**3 / seconds_per_image(products, seconds) / 1e9


def gemm_type(precision: str, device: str) -> torch.dtype:
    """The number format of the matrix products that a precision is compared with.

    torch has no int8 matrix product, so int8 is compared with the faster of fp32 and bf16.
    """
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision in named:
        return named[precision]
    return max((torch.float32, torch.bfloat16), key=lambda dtype: gemm_gflops_per_s(device, dtype, 0.3))
