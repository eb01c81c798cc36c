"""The demo: a rendered sample video with known joints, and a run on it."""
