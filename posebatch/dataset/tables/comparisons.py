"""The table of a comparison: one row per phase and angle."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import pyarrow as pa

from posebatch.dataset.tables.parquet import write_parquet
from posebatch.motion.comparing.comparison import Comparison
from posebatch.motion.comparing.reference_band import Band

COMPARISON_SCHEMA: Final = pa.schema(
    [
        pa.field("phase", pa.float64()),
        pa.field("time_a", pa.float64()),
        pa.field("time_b", pa.float64()),
        pa.field("angle", pa.string()),
        pa.field("a", pa.float32()),
        pa.field("b", pa.float32()),
        pa.field("difference", pa.float32()),
        pa.field("reference_low", pa.float32()),
        pa.field("reference_median", pa.float32()),
        pa.field("reference_high", pa.float32()),
    ]
)
"""Ordered by angle as chosen, then by phase. Angles in degrees, times in seconds of either video. NaN: not known."""


def comparison_parquet(comparison: Comparison, band: Band | None, labels: tuple[str, str]) -> bytes:
    """The comparison as a Parquet file. Its metadata names both performances; without a band its columns are null."""
    steps, angles = comparison.a.shape
    nothing = pa.nulls(steps * angles, pa.float32())

    def column(values: np.ndarray) -> pa.Array:
        return pa.array(values.T.ravel().astype(np.float32))

    table = pa.table(
        {
            "phase": np.tile(comparison.phase, angles),
            "time_a": np.tile(comparison.time_a, angles),
            "time_b": np.tile(comparison.time_b, angles),
            "angle": np.repeat(np.array(comparison.angle_names, object), steps),
            "a": column(comparison.a),
            "b": column(comparison.b),
            "difference": column(comparison.difference),
            "reference_low": nothing if band is None else column(band.low),
            "reference_median": nothing if band is None else column(band.median),
            "reference_high": nothing if band is None else column(band.high),
        },
        COMPARISON_SCHEMA,
    )
    sink = io.BytesIO()
    metadata = {"posebatch.comparison_a": labels[0], "posebatch.comparison_b": labels[1]}
    write_parquet(sink, COMPARISON_SCHEMA, [table], metadata)
    return sink.getvalue()
