"""Series of poses: who is who, smoothed joints, angles, speeds, quality. NumPy and SciPy; no pixels, no files."""
