"""Heatmaps to joints on the device of the heatmaps: only three numbers per joint are copied to the CPU, not a map."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from posebatch.pose.heatmaps import QUARTER_STEP, Refinement, decode_heatmaps


def find_peaks(heatmaps: torch.Tensor, refinement: Refinement) -> NDArray[np.float32]:
    """Decode maps on any device as `decode_heatmaps` does: (n, k, height, width) -> (n, k, 3) x, y, score.

    ``dark`` needs float64 around each peak, so it copies the maps to the CPU.
    """
    if heatmaps.device.type == "cpu" or refinement == "dark":
        return decode_heatmaps(heatmaps.cpu().numpy(), refinement)
    peaks: NDArray[np.float32] = peaks_by_torch(heatmaps, refinement).cpu().numpy()
    return peaks


def peaks_by_torch(heatmaps: torch.Tensor, refinement: Refinement) -> torch.Tensor:
    """Decode maps by torch, on their device, for ``argmax`` and ``quarter``: (n, k, height, width) -> (n, k, 3)."""
    height, width = heatmaps.shape[2:]
    flat = heatmaps.flatten(2)
    score, index = flat.max(dim=2)  # the first of equal maxima, as in NumPy
    y, x = index.div(width, rounding_mode="floor"), index % width
    has_peak = score > 0
    position = torch.stack([x, y], dim=2).float() * has_peak[..., None]
    if refinement == "quarter":
        inside = has_peak & (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
        middle = torch.where(inside, index, width + 1)  # any inner pixel, for maps that take no step
        slopes = [
            flat.gather(2, (middle + step)[..., None]) - flat.gather(2, (middle - step)[..., None])
            for step in (1, width)
        ]
        position = position + QUARTER_STEP * torch.cat(slopes, dim=2).sign() * inside[..., None]
    return torch.cat([position, score[..., None]], dim=2)
