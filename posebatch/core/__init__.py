"""Data that all packages share: frames, images, videos, records, settings, errors. NumPy and YAML, no I/O."""
