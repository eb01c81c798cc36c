"""Heatmaps to joints on the device where the heatmaps are, so that three numbers a joint are copied back, not a map."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from posebatch.pose.heatmaps import QUARTER_STEP, Refinement, decode_heatmaps


def find_peaks(heatmaps: torch.Tensor, refinement: Refinement) -> NDArray[np.float32]:
    """`posebatch.pose.heatmaps.decode_heatmaps` of maps on any device: (n, k, height, width) -> (n, k, 3) x, y, score.

    ``dark`` needs the neighbourhood of each peak in float64: the maps are copied.
    """
    if heatmaps.device.type == "cpu" or refinement == "dark":
        return decode_heatmaps(heatmaps.cpu().numpy(), refinement)
    peaks: NDArray[np.float32] = peaks_by_torch(heatmaps, refinement).cpu().numpy()
    return peaks


def peaks_by_torch(heatmaps: torch.Tensor, refinement: Refinement) -> torch.Tensor:
    """The same by torch alone, for ``argmax`` and ``quarter``; float32 on the maps' device."""
    height, width = heatmaps.shape[2:]
    flat = heatmaps.flatten(2)
    score, index = flat.max(dim=2)  # of equal ones the first, as in NumPy
    y, x = index.div(width, rounding_mode="floor"), index % width
    there = score > 0
    position = torch.stack([x, y], dim=2).float() * there[..., None]
    if refinement == "quarter":
        inside = there & (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
        middle = torch.where(inside, index, width + 1)  # anywhere inside, for those that take no step
        slopes = [
            flat.gather(2, (middle + step)[..., None]) - flat.gather(2, (middle - step)[..., None])
            for step in (1, width)
        ]
        position = position + QUARTER_STEP * torch.cat(slopes, dim=2).sign() * inside[..., None]
    return torch.cat([position, score[..., None]], dim=2)
